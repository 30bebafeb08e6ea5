"""Night after night: what was scored is not scored again, and nobody can tell from the results."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rerank_batch.workflows.open_results import open_results
from tests.conftest import run_json, sentences

pytestmark = (
    pytest.mark.slow
)  # the scorer with a memory itself is in tests/rerankers/test_cached.py


def write_night(folder: Path, texts: dict[str, str], asked: dict[str, str]) -> None:
    """Corpus and log of a night."""
    corpus = {"doc_id": list(texts), "title": [""] * len(texts), "text": list(texts.values())}
    pq.write_table(pa.table(corpus), folder / "corpus.parquet")
    log = {"query_id": list(asked), "query": list(asked.values())}
    pq.write_table(pa.table(log), folder / "log.parquet")


@pytest.fixture(scope="module")
def nights(tmp_path_factory, config_file):
    """Two nights, the second with another corpus and log, once with the cache and once without."""
    folder = tmp_path_factory.mktemp("nights")
    config = yaml.safe_load(config_file.read_text())
    config |= {"root": str(folder / "runs"), "job": "nightly", "cache": {"enabled": True}}
    config["corpus"]["path"] = str(folder / "corpus.parquet")
    config["queries"]["path"] = str(folder / "log.parquet")
    config["index"]["path"] = str(folder / "index")
    config["reranker"]["runtime"] = "openvino"
    config["qrels"] = None
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))

    texts = {f"d{n:03d}": text for n, text in enumerate(sentences(60, seed=2, words=20))}
    asked = {f"q{n:02d}": text for n, text in enumerate(sentences(20, seed=3))}
    write_night(folder, texts, asked)
    run_json("build-index", file)
    first = run_json("rerank", file, "--run-id", "first")

    gone, changed = {"d003", "d010", "d044"}, {"d007": "winter river garden", "d021": "alpha"}
    texts = {name: text for name, text in (texts | changed).items() if name not in gone}
    texts["d900"] = "stone paper engine"
    asked = {**{name: text for name, text in asked.items() if name != "q04"}, "q90": "cloud river"}
    write_night(folder, texts, asked)
    run_json("build-index", file)
    second = run_json("rerank", file, "--run-id", "second")
    without = run_json("rerank", file, "--run-id", "without", "--set", "cache.enabled=false")
    return {"first": first, "second": second, "without": without, "gone": gone, "config": file}


def rows(root, run_id):
    return open_results(root, "nightly", run_id).arrow().to_table().sort_by("qidx").to_pylist()


def test_the_results_are_bit_for_bit_those_of_a_run_without_the_cache(nights):
    root = nights["second"]["root"]
    with_cache, without = (rows(root, run_id) for run_id in ("second", "without"))
    assert with_cache == without
    assert nights["without"]["cache"] is None


def test_only_pairs_that_are_new_are_scored(nights):
    def pairs(run_id):
        listed = rows(nights["first"]["root"], run_id)
        return {(row["query"], hit["doc_id"]) for row in listed for hit in row["candidates"]}

    changed = {"d007", "d021"}
    before = {(query, name) for query, name in pairs("first") if name not in changed}
    tonight = pairs("second")
    cache = nights["second"]["cache"]
    assert cache["scored_pairs"] == len(tonight - before) > 0
    assert cache["known_pairs"] == len(tonight & before) > 100
    assert cache["hit_rate"] == pytest.approx(len(tonight & before) / len(tonight), abs=1e-3)
    assert cache["saved_seconds"] > 0
    first = nights["first"]["cache"]
    assert (first["known_pairs"], first["scored_pairs"]) == (0, nights["first"]["pairs"])
    assert cache["cached_pairs"] == first["cached_pairs"] + cache["scored_pairs"]


def test_documents_that_are_gone_disappear(nights):
    before, after = (
        {
            hit["doc_id"]
            for row in rows(nights["first"]["root"], run_id)
            for hit in row["candidates"]
        }
        for run_id in ("first", "second")
    )
    assert before & nights["gone"]
    assert not after & nights["gone"]


def test_the_summary_says_what_changed(nights):
    assert nights["first"]["changes"] is None
    changes = nights["second"]["changes"]
    root = nights["second"]["root"]
    old, new = (
        {row["query"]: [hit["doc_id"] for hit in row["results"]] for row in rows(root, run_id)}
        for run_id in ("first", "second")
    )
    both = old.keys() & new.keys()
    assert changes == {
        "since": "first",
        "queries_new": 1,
        "queries_gone": 1,
        "lists_changed": sum(old[query] != new[query] for query in both),
        "lists_same": sum(old[query] == new[query] for query in both),
        "documents_before": 60,
    }
    assert changes["lists_changed"] > 0 < changes["lists_same"]
    assert nights["without"]["changes"]["lists_changed"] == 0


def test_the_files_of_new_scores_are_gone_once_they_are_in_the_cache(nights):
    root = Path(nights["first"]["root"])
    for run_id in ("first", "second"):
        assert list((root / "runs" / run_id).glob("scores/*.arrow")) == []
    assert len(list((root / "scores").glob("*/segments/*.arrow"))) > 0


def test_a_damaged_cache_costs_time_and_no_result(nights):
    """A manifest that cannot be read, and a segment that is not what it was."""
    place, config = nights["first"]["root"], nights["config"]
    root = Path(place)
    (manifest,) = root.glob("scores/*/manifest.json")
    whole = manifest.read_bytes()
    expected = rows(place, "second")
    try:
        manifest.write_text("{")
        summary = run_json("rerank", config, "--run-id", "no-manifest")
        assert summary["cache"] is None
        assert rows(place, "no-manifest") == expected
        manifest.write_bytes(whole)
        for segment in manifest.parent.glob("segments/*.arrow"):
            segment.write_bytes(segment.read_bytes()[:-9])
        summary = run_json("rerank", config, "--run-id", "broken-segments")
        assert summary["cache"]["known_pairs"] == 0
        assert any("score cache" in event for event in summary["events"])
        assert rows(place, "broken-segments") == expected
    finally:
        manifest.write_bytes(whole)


def test_the_cache_is_kept_within_its_bytes(nights):
    summary = run_json("rerank", nights["config"], "--set", "cache.max_bytes=1")
    assert summary["cache"]["cached_pairs"] == 0
