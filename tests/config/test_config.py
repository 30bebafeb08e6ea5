"""The configuration: what is refused and in which words, and what belongs to a run's identity."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from rerank_batch.config import (
    OF_COLLECTION,
    Config,
    digest,
    load_config,
    parse_config,
    results_settings,
)
from rerank_batch.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

BASE: dict[str, Any] = {
    "root": "./.runs",
    "job": "nightly",
    "corpus": {"path": "corpus.parquet"},
    "queries": {"path": "log"},
    "qrels": {"path": "qrels.tsv"},
    "index": {"path": ".index", "encoder": "sentence-transformers:package:minilm"},
    "retrieval": {"depth": 50},
    "reranker": {"model": "cross-encoder:models/small"},
}


def with_value(key: str, value: Any) -> dict[str, Any]:
    """BASE with one dotted key set."""
    raw = deepcopy(BASE)
    *parents, leaf = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return raw


def load(tmp_path: Path, *overrides: str, text: str | None = None) -> Config:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(BASE) if text is None else text)
    return load_config(file, list(overrides))


JOBS = sorted(file for file in CONFIGS.glob("*.yaml") if not file.stem.startswith("finetune"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_every_configuration_that_is_shipped_is_valid(file: Path) -> None:
    config = load_config(file)
    assert (config.corpus.path == OF_COLLECTION) == (config.collection is not None)


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "near", "others"),
    [
        ("corpuss", "corpus", ["queries", "index", "reranker", "compute"]),
        ("reranker.topk", "top_k", ["model", "max_length", "batch_tokens"]),
        ("queries.judge_only", "judged_only", ["path", "dedupe", "max_chars"]),
        ("compute.scorer", "scorers", ["encoders", "block_rows"]),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one_and_all_others(
    key: str, near: str, others: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value(key, 1))
    message = str(error.value)
    assert f"{key}: unknown key; did you mean {near!r}?" in message
    valid = message[message.index("valid keys: ") :]
    assert all(name in valid for name in [near, *others])


def test_an_unknown_key_like_no_other_gets_no_silly_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"zzzzzz: unknown key \(valid keys: ") as error:
        parse_config(with_value("zzzzzz", 1))
    assert "did you mean" not in str(error.value)


def test_every_problem_is_told_at_once() -> None:
    raw = with_value("retrieval.depth", 0)
    del raw["corpus"]
    raw["index"]["shardz"] = 2
    with pytest.raises(ConfigError) as error:
        parse_config(raw, source="job.yaml")
    message = str(error.value)
    assert message.startswith("job.yaml cannot be used")
    assert "corpus: required" in message
    assert "index.shardz" in message
    assert "retrieval.depth" in message
    assert "got 0" in message


@pytest.mark.parametrize(
    "text",
    ["job: one\njob: two\n", "corpus:\n  path: a\n  path: b\n", "corpus: {path: a, path: b}"],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"stands twice(.|\n)*line \d"):
        load(tmp_path, text=text)


@pytest.mark.parametrize("text", ["a: [1", "\t- x", "? [a, b]\n: 1\n", "? {a: b}\n: 1\n"])
def test_what_is_not_yaml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        load(tmp_path, text=text)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_holds_no_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="mapping of sections"):
        load(tmp_path, text=text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_yaml_tag_runs_no_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ConfigError):
        load(tmp_path, text=f"job: !!python/object/apply:os.mkdir ['{canary}']")
    assert not canary.exists()


# --- overrides -------------------------------------------------------------------------------


def test_overrides_take_yaml_values_and_win_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "retrieval.depth=30",
        "job=weekly",
        "queries.dedupe=false",
        "evaluation.measures=[nDCG@5, AP]",
        'queries.filter=[[date, ">=", 2026-01-02]]',
        "corpus.path=a=b.parquet",
        "reranker=null",
    )
    assert config.retrieval.depth == 30
    assert config.job == "weekly"
    assert config.queries is not None
    assert config.queries.dedupe is False
    assert config.queries.filter[0][:2] == ("date", ">=")
    assert config.evaluation.measures == ("nDCG@5", "AP")
    assert config.corpus.path == "a=b.parquet"
    assert config.reranker is None


def test_the_last_override_of_a_key_wins(tmp_path: Path) -> None:
    assert load(tmp_path, "retrieval.depth=30", "retrieval.depth=40").retrieval.depth == 40


def test_an_override_creates_the_section_it_needs(tmp_path: Path) -> None:
    assert "compute" not in BASE
    assert load(tmp_path, "compute.scorers=3").compute.scorers == 3


def test_an_override_fills_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    text = yaml.safe_dump({**BASE, "qrels": None})
    config = load(tmp_path, "qrels.path=judged.tsv", text=text)
    assert config.qrels is not None
    assert config.qrels.path == "judged.tsv"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("retrieval.depth", "dotted.key=value"),
        ("=3", "dotted.key=value"),
        ("job.name=x", "'job' is a value"),
        ("evaluation.measures=[nDCG@5", "not a YAML value"),
        ("compute={cpus: 1, cpus: 2}", "not a YAML value"),
        ("retrieval.dept=3", "did you mean 'depth'"),
        ("retrieval.depth=lots", "got 'lots'"),
    ],
)
def test_a_bad_override_says_what_is_wrong_with_it(
    tmp_path: Path, override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, override)
    assert complaint in str(error.value)


# --- values ----------------------------------------------------------------------------------


def test_a_configuration_cannot_be_changed() -> None:
    config = parse_config(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        config.job = "other"
    with pytest.raises(ValidationError, match="frozen"):
        config.retrieval.depth = 3


def test_no_more_results_than_candidates() -> None:
    raw = with_value("reranker.top_k", 51)
    with pytest.raises(ConfigError, match=r"top_k \(51\) is larger than retrieval.depth \(50\)"):
        parse_config(raw)
    raw["reranker"]["top_k"] = 50
    assert parse_config(raw).reranker is not None


@pytest.mark.parametrize("job", ["", "Nightly", "a b", "../x", "a/b", "-a", "é", "a" * 65, "a\n"])
def test_a_job_name_that_could_not_be_a_folder_name_everywhere_is_refused(job: str) -> None:
    with pytest.raises(ConfigError, match="is not a job name"):
        parse_config(with_value("job", job))


@pytest.mark.parametrize("job", ["a", "nightly-2026_01", "0", "a" * 64])
def test_plain_job_names_are_fine(job: str) -> None:
    assert parse_config(with_value("job", job)).job == job


@pytest.mark.parametrize("value", [0.2, 0, 5, 0.0, 0.999, 1])
def test_a_limit_is_a_number_of_rows_or_a_share_of_them(value: float) -> None:
    limit = parse_config(with_value("limits.max_rejects", value)).limits.max_rejects
    assert limit == value
    assert type(limit) is type(value)


@pytest.mark.parametrize("value", [-1, 1.5, -0.1, "x", None, [1], float("nan"), float("inf")])
def test_a_wrong_limit_is_told_once_with_what_it_may_be(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value("limits.max_rejects", value))
    problems = str(error.value).splitlines()[1:]
    assert len(problems) == 1, problems
    assert problems[0].startswith("  - limits.max_rejects: ")
    assert "auto" not in problems[0]
    assert "number" in problems[0]
    assert "share" in problems[0]
    assert f"got {value!r}" in problems[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage.cache_gb", 0),
        ("storage.cache_gb", -1),
        ("storage.cache_gb", "much"),
        ("compute.index_memory_gb", 0),
        ("compute.index_memory_gb", "some"),
        ("storage.lease_seconds", 0.5),
        ("storage.lease_seconds", "long"),
        ("storage.endpoint", 9000),
    ],
)
def test_a_wrong_storage_setting_is_told_with_its_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key}: ") as error:
        parse_config(with_value(key, value))
    assert f"got {value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("storage.end_point", "endpoint"),
        ("storage.cachegb", "cache_gb"),
        ("limits.max_reject", "max_rejects"),
        ("queries.keep_rejected_text", "keep_rejected_texts"),
        ("outcomes.outcomes", "outcome"),
        ("answer_check.references", "reference"),
    ],
)
def test_an_unknown_key_of_the_newer_sections_is_answered_with_the_nearest(
    key: str, near: str
) -> None:
    with pytest.raises(ConfigError, match=f"{key}: unknown key; did you mean '{near}'"):
        parse_config(with_value(key, 1))


@pytest.mark.parametrize("key", ["access_key", "secret_key", "aws_secret_access_key", "profile"])
def test_there_is_no_place_for_credentials(key: str) -> None:
    with pytest.raises(ConfigError, match=f"storage.{key}: unknown key") as error:
        parse_config(with_value(f"storage.{key}", "canary"))
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "https://minio.example", "http://[::1]:9000", None]
)
def test_plain_endpoints_are_fine(endpoint: str | None) -> None:
    assert parse_config(with_value("storage.endpoint", endpoint)).storage.endpoint == endpoint


PATHS = [
    "root",
    "collection",
    "corpus.path",
    "queries.path",
    "qrels.path",
    "index.path",
    "outcomes.path",
]


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        *((key, "s3://AKIAKEY:canary@bucket/folder") for key in PATHS),
        ("root", "S3://AKIAKEY:canary@bucket/folder"),
        ("root", "s3+http://AKIAKEY:canary@bucket/folder"),
        ("root", "s3://AKIAKEY:canary/with/slashes@bucket/folder"),
        ("root", "https://user:canary@host/folder"),
        ("storage.endpoint", "https://user:canary@host:9000"),
        ("storage.endpoint", "http://canary@host"),
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(key: str, uri: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: credentials in a URI are refused") as error:
        parse_config(with_value(key, uri))
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("uri", ["s3://bucket/folder", "s3://bucket/a@b", "./me@home", "a:b@c"])
def test_paths_without_credentials_are_fine(key: str, uri: str) -> None:
    assert parse_config(with_value(key, uri))


@pytest.mark.parametrize("value", ["many", 0, -1, 1.5])
def test_a_wrong_pool_size_is_told_once_by_the_key_that_one_can_type(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value("compute.scorers", value))
    problems = str(error.value).splitlines()[1:]
    assert len(problems) == 1
    assert problems[0].startswith("  - compute.scorers: ")
    assert f"got {value!r}" in problems[0]


# --- the settings that make a run what it is ---------------------------------------------------


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
        ("reranker.layer", 4),
        ("reranker.instruction", "find the answer"),
        ("reranker.max_chars", 800),
        ("reranker.method", "listwise"),
        ("reranker.window", 15),
        ("reranker.step", 5),
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
        ("reranker.service", {"concurrency": 4, "requests_per_minute": 60}),
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


@pytest.mark.parametrize(
    ("reranker", "told"),
    [
        ({"top_k": 5}, "give either model, or stages"),
        ({"model": "a:b", "stages": [{"model": "a:b"}]}, "give either model, or stages"),
        ({"stages": [{"model": "a:b"}], "max_length": 64}, "max_length: with stages"),
        (
            {"stages": [{"model": "a:b", "depth": 10}, {"model": "a:c", "depth": 20}]},
            "must not grow",
        ),
        ({"stages": [{"model": "a:b"}, {"model": "a:c", "depth": 9}]}, "top_k (10) is larger"),
        ({"model": "a:b", "depth": 51}, "depth (51) is larger than retrieval.depth"),
        ({"model": "a:b", "gate": {"signal": "margin@1"}}, "is no signal: margin, margin@k"),
        ({"model": "a:b", "gate": {"max_loss": 0}}, "gate.max_loss"),
    ],
)
def test_a_reranker_that_makes_no_sense_is_refused(reranker: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(with_value("reranker", reranker))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("retrieval", "told"),
    [
        ({"sources": ["bm25"]}, "retrieval.sources: bm25 needs index.bm25"),
        ({"sources": []}, "retrieval.sources: Tuple should have at least 1 item"),
        ({"sources": ["sparse"]}, "Input should be 'dense', 'bm25' or 'given' (got 'sparse')"),
        ({"sources": ["dense", "dense"]}, "a source stands twice: dense, dense"),
        ({"sources": ["given"]}, "needs retrieval.given, its lists"),
        ({"given": {}}, "retrieval.given: give either trec or parquet"),
        ({"given": {"trec": "x", "id": "y"}}, "id and documents are columns of parquet"),
        ({"fusion": {"weights": {"dense": 0}}}, "every source has the weight 0"),
        ({"fusion": {"method": "weighted", "k": 10}}, "k is no setting of method: weighted"),
        ({"fusion": {"normalise": "z"}}, "normalise is no setting of method: rrf"),
        ({"fusion": {"weight": {}}}, "retrieval.fusion.weight: unknown key; did you mean"),
        ({"depths": {"bm25": 0}}, "retrieval.depths.bm25"),
    ],
)
def test_sources_that_make_no_sense_are_refused(retrieval: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(with_value("retrieval", retrieval))
    assert told in str(refused.value)


def test_stop_words_are_a_list_or_those_of_a_known_language() -> None:
    raw = with_value("index.bm25", {"stopwords": "klingon"})
    with pytest.raises(ConfigError, match="a list of words, or one of none, chinese, danish"):
        parse_config(raw)
    bm25 = parse_config(with_value("index.bm25", {"stopwords": ["der", "die"]})).index.bm25
    assert bm25 is not None
    assert bm25.stopwords == ("der", "die")


def test_what_is_not_retrieved_from_changes_no_fingerprint() -> None:
    raw = with_value("index.bm25", {})
    dense = results_settings(parse_config(raw))
    assert dense["retrieval"] == {"depth": 50}
    assert dense == results_settings(parse_config(with_value("retrieval.depth", 50)))
    raw["retrieval"] = {"depth": 50, "sources": ["dense", "bm25"]}
    rrf = results_settings(parse_config(raw))
    raw["retrieval"]["fusion"] = {"k": 10}
    assert dense != rrf != results_settings(parse_config(raw))


def test_a_segment_is_named_once() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.segments: locale stands twice"):
        parse_config(with_value("evaluation.segments", ["locale", "date", "locale"]))


def test_the_price_of_a_model_goes_before_that_of_its_family() -> None:
    prices = {"cohere": {"search_unit": 2}, "cohere:small": {"search_unit": 1}}
    cost = parse_config(with_value("cost", {"prices": prices})).cost
    found = [cost.price(name) for name in ("cohere:small", "cohere:large", "voyage:x")]
    assert [price and price.search_unit for price in found] == [1, 2, None]


def test_a_quoted_date_is_the_same_setting_as_a_bare_one(tmp_path: Path) -> None:
    bare = load(tmp_path, 'queries.filter=[[date, ">=", 2026-01-02]]')
    quoted = load(tmp_path, 'queries.filter=[[date, ">=", "2026-01-02"]]')
    assert digest(results_settings(bare)) == digest(results_settings(quoted))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, "é"]}) == digest({"b": [2, "é"], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
