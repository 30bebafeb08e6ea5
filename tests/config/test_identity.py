"""What belongs to a run's identity."""

from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import digest, load_config, parse_config, results_settings
from tests.support.configs import BASE, load, with_value


def identity(raw: dict[str, Any]) -> str:
    return digest(results_settings(parse_config(raw)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corpus.format", "parquet"),
        ("corpus.id", "other"),
        ("corpus.title", "other"),
        ("corpus.text", "other"),
        ("corpus.empty", "error"),
        ("queries.id", "other"),
        ("queries.text", "other"),
        ("queries.time", "other"),
        ("queries.weight", "other"),
        ("queries.dedupe", False),
        ("queries.duplicates", "first"),
        ("queries.judged_only", True),
        ("queries.filter", [["date", ">=", "2026-01-02"]]),
        ("queries.max_chars", 100),
        ("qrels.filter", [["split", "==", "test"]]),
        ("index.kind", "HNSW"),
        ("index.max_length", 64),
        ("index.nprobe", 8),
        ("index.ef_search", 64),
        ("retrieval.depth", 49),
        ("queries.keep_rejected_texts", True),
        ("reranker.model", "late-interaction:models/small"),
        ("index.encoder", "other-family:package:minilm"),
        ("reranker.top_k", 5),
        ("reranker.max_length", 128),
        ("reranker.precision", "bf16"),
        ("reranker.depth", 20),
        ("reranker.gate", {"threshold": 0.1}),
        ("reranker", {"stages": [{"model": "cross-encoder:a"}, {"model": "cohere:b"}]}),
        ("evaluation.measures", ["AP"]),
        ("compute.block_rows", 256),
        ("reranker", None),
    ],
)
def test_what_changes_results_changes_the_identity(key: str, value: Any) -> None:
    assert identity(with_value(key, value)) != identity(BASE)


@pytest.mark.parametrize(
    ("model", "setting", "value"),
    [
        ("bge-layerwise:a", "layer", 4),
        ("mxbai-v2:a", "instruction", "find the answer"),
        ("cohere:a", "max_chars", 800),
        ("llm:a", "method", "listwise"),
        ("llm:a", "window", 15),
        ("llm:a", "step", 5),
    ],
)
def test_so_does_what_only_some_families_read(model: str, setting: str, value: Any) -> None:
    changed = with_value("reranker", {"model": model, setting: value})
    assert identity(changed) != identity(with_value("reranker", {"model": model}))


def test_how_a_service_is_called_is_not_part_of_the_identity() -> None:
    called = {"model": "cohere:a", "service": {"concurrency": 4, "requests_per_minute": 60}}
    assert identity(with_value("reranker", called)) == identity(
        with_value("reranker", {"model": "cohere:a"})
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root", "/elsewhere"),
        ("job", "weekly"),
        ("collection", "/elsewhere"),
        ("split", "dev"),
        ("corpus.path", "/elsewhere"),
        ("queries.path", "/elsewhere"),
        ("qrels.path", "/elsewhere"),
        ("index.path", "/elsewhere"),
        ("compute.encoders", 3),
        ("compute.retrievers", 3),
        ("compute.scorers", 3),
        ("compute.cpus", 3),
        ("compute.address", "10.0.0.1:6379"),
        ("compute.object_store_mb", 1024),
        ("compute.index_memory_gb", 0.5),
        ("storage.endpoint", "http://127.0.0.1:9000"),
        ("storage.cache", "/elsewhere"),
        ("storage.cache_gb", 1.5),
        ("storage.lease_seconds", 60),
        ("limits.max_rejects", 7),
        ("evaluation.segments", ["locale", "date"]),
        ("cost", {"per_hour": 2, "cap": 5, "prices": {"cohere": {"search_unit": 0.002}}}),
        ("reranker.model", "cross-encoder:/moved/to/small"),
        ("reranker.model", "cross-encoder:package:small"),
        ("index.encoder", "sentence-transformers:/moved/to/minilm"),
        ("outcomes", {"path": "thumbs.parquet", "less_is_better": ["seconds"]}),
        ("answer_check", {"model": "llm:some", "reference": "answers.parquet", "top": 3}),
    ],
)
def test_where_and_how_fast_is_not_part_of_the_identity(key: str, value: Any) -> None:
    assert identity(with_value(key, value)) == identity(BASE)


def test_one_model_is_a_cascade_of_one_with_the_same_settings() -> None:
    alone = parse_config(with_value("reranker.depth", 30))
    staged = with_value("reranker", {"stages": [{**BASE["reranker"], "depth": 30}]})
    assert parse_config(staged).reranker is not None
    assert results_settings(parse_config(staged)) == results_settings(alone)


def test_what_is_not_retrieved_from_changes_no_fingerprint() -> None:
    raw = with_value("index.bm25", {})
    dense = results_settings(parse_config(raw))
    assert dense["retrieval"] == {"depth": 50}
    assert dense == results_settings(parse_config(with_value("retrieval.depth", 50)))
    raw["retrieval"] = {"depth": 50, "sources": ["dense", "bm25"]}
    rrf = results_settings(parse_config(raw))
    raw["retrieval"]["fusion"] = {"k": 10}
    assert dense != rrf != results_settings(parse_config(raw))


def test_a_quoted_date_is_the_same_setting_as_a_bare_one(tmp_path: Path) -> None:
    bare = load(tmp_path, 'queries.filter=[[date, ">=", 2026-01-02]]')
    quoted = load(tmp_path, 'queries.filter=[[date, ">=", "2026-01-02"]]')
    assert digest(results_settings(bare)) == digest(results_settings(quoted))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, "é"]}) == digest({"b": [2, "é"], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("compare", [], "58b8e007dfb31489d011ed9033d79b9bc67a9678819c8a5800e64e3d925d7686"),
        ("eval", [], "039742e55256ee03bf97c01b90f688f0af835d22e87c8756f0a0e22aadbaea4a"),
        ("labels-sample", [], "e6cb289b4573efba0ec6c2236cd696aac1e2a1ba6387fa43a2e52e5a19fb4658"),
        ("nightly", [], "899072c0480acf3fd565683256f2983e7b77cb198d6011942c8bb422c65fb2b9"),
        ("quickstart", [], "a792915dc4cde5f68984ce9e49c66f557b9f0f3def77ceb2807512eb4de04e40"),
        (
            "quickstart",
            ["index.bm25={}", "retrieval.sources=[dense, bm25]"],
            "e7d57ca65e56d5060e3e09be272951653d3ca7deff007b49a679511e6ca882e6",
        ),
        (
            "quickstart",
            ["index.bm25={k1: 0.9, stopwords: [a, of]}", "retrieval={sources: [bm25], depth: 40}"],
            "8231da1a488dcc77b50f322808d8f70014c55a4341025b09ff3ee912e19ac5d0",
        ),
        (
            "quickstart",
            [
                "index.bm25={}",
                "retrieval={sources: [dense, bm25], depths: {dense: 9}}",
                "retrieval.fusion.method=weighted",
            ],
            "78a1f52c2ead8b5850c922d4a4f3c3548b45f113aa7064ad5f8f1bfab3178114",
        ),
        (
            "quickstart",
            ["clicks={path: c, propensity: {eta: estimate}}", "evaluation.labels=clicks"],
            "f23788d1f358cd912d885db3c14093f6464b53b54a01f2456509e4f8395b965c",
        ),
        (
            "quickstart",
            ["queries={path: q, head: {share: 0.5}, time_unit: ms, weight: null}"],
            "b91795d78c222da44586531b5dae2fc49e9cbacc3e6444da714adb8a0fffa898",
        ),
        (
            "quickstart",
            ["queries.filter=[[date, '>=', 2026-01-02]]"],
            "2df01d382b0811a3928f13909cb5678c5a7968c91d173eaad51bdb52982ab429",
        ),
        (
            "quickstart",
            ["reranker.gate={signal: top1, threshold: 0.5, max_loss: 0.1}"],
            "ab18feafc8d1db78cdedee802a7c673c3a4d2d7fc0a0d1c77d1e6237ca3392b2",
        ),
        (
            "quickstart",
            ["reranker={model: 'llm:x', method: listwise, window: 15, max_chars: 900}"],
            "dcc9ad90898e1633561ba1ade5575a4ff27dd522d214c0bd2546e1a87f69f403",
        ),
        (
            "quickstart",
            [
                "reranker={}",
                "reranker.stages=[{model: bge-layerwise:a, layer: 9},{model: cohere:b, depth: 10}]",
            ],
            "9d72d5180bab555c52abc98a14a2206ca26b4bb6c1138ce6d3d155b641efdb1c",
        ),
        (
            "quickstart",
            [
                "reranker={model: 'cross-encoder:a', precision: bf16, allow: [int8]}",
                "reranker.batch_tokens=64",
            ],
            "6dd06565a69c43b09220aebae289c41996dcb768f3f1600325bd602a4fc3bf90",
        ),
        (
            "quickstart",
            ["reranker=null"],
            "2d3e934ddf77b58b7351f00ec1af5e36bb39c478c1fee05b673b6e8ebbfac999",
        ),
        (
            "quickstart",
            ["compute.block_rows=64"],
            "3a19466d283e62435240679c02233e5a3f015537202abffb5ceafaedf5b0c1c7",
        ),
    ],
)
def test_a_run_of_an_earlier_version_is_the_same_run(
    name: str, overrides: list[str], expected: str
) -> None:
    """So that it can be resumed."""
    config = load_config(Path(f"configs/{name}.yaml"), overrides)
    assert digest(results_settings(config)) == expected
