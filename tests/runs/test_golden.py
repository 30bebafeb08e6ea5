"""What an earlier version stored is read by this one, and means the same; see tests/golden."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from rerank_batch import schema
from rerank_batch.config import Bm25Config, digest
from rerank_batch.index.generations import read_manifest
from rerank_batch.index.open import Index, verify_files
from rerank_batch.retrieval.bm25 import Bm25Search, Bm25Shard
from rerank_batch.retrieval.shards import open_shard, search_all, stored_vectors
from rerank_batch.runs.decisions import read_decision
from rerank_batch.runs.latest import latest_run
from rerank_batch.runs.objects import CommitName, total
from rerank_batch.runs.parquet import read_block
from rerank_batch.runs.run import Run
from rerank_batch.score_cache.segment import ScoreSegment
from rerank_batch.score_cache.store import ScoreCache
from rerank_batch.storage import NodeCache, open_root
from rerank_batch.training.labels import read_labels
from rerank_batch.workflows.open_results import open_results

GOLDEN = Path(__file__).parents[1] / "golden"

RETRIEVAL_NDCG, RERANKED_NDCG = 0.08885937211962835, 0.15010491510750296
MEASURES = ("nDCG@10", "RR@10", "R@20")
CROSS_ENCODER_SCOPE = "63cfaa7524a887337fac2b92b405b1b3"
LATE_SCOPE = "0ea16e384a6ff2dcdcdf22e93cc87b67"


@pytest.fixture(autouse=True)
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files in a folder that may be written to; paths in them are relative to it."""
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def summary(capfd: pytest.CaptureFixture[str]) -> Any:
    """What a command writes to file descriptor 1, which it keeps for its summary alone."""

    def of(*words: str, exit_code: int = 0) -> dict[str, Any]:
        capfd.readouterr()
        before = os.dup(1)
        done = CliRunner().invoke(app, [*words, "--json"])
        os.dup2(before, 1)
        os.close(before)
        out, err = capfd.readouterr()
        assert done.exit_code == exit_code, err
        found: dict[str, Any] = json.loads(out)
        return found

    return of


def run_of(run_id: str) -> Run:
    return Run.open(open_root("store"), run_id)


def opened(path: str, cache: Path, generation: str | None = None) -> Index:
    root = open_root(path)
    return Index(root, read_manifest(root, generation), NodeCache(cache, sys.maxsize))


def searched(index: Index, query: str) -> list[str]:
    """Ids of the best documents by BM25."""
    numbers = index.numbers()
    shards = [
        Bm25Shard(file, words.start, words.stop)
        for file, words in zip(index.posting_files(), index.manifest.word_shards(), strict=True)
    ]
    assert index.manifest.bm25 is not None
    hits = Bm25Search(shards, Bm25Config(**index.manifest.bm25)).search([query], 5)
    assert numbers is None or index.manifest.words is not None
    return index.texts().ids(hits.documents[0])


# --- runs ------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_states(summary: Any) -> None:
    rows = summary("runs", "list", "store")["runs"]
    told = [(r["run_id"], r["job"], r["state"], r["queries"]) for r in rows]
    assert told == [
        ("plain", "tiny", "complete", 12),
        ("systems", "tiny", "complete", 9),
        ("labelled", "tiny-labels", "complete", 9),
        ("held", "tiny", "complete", 12),
    ]
    assert [r["run_id"] for r in rows if r["latest"]] == ["plain", "labelled"]
    assert [r["run_id"] for r in rows if r["held_back"]] == ["held"]
    assert rows[0]["created"] == "2026-12-01T05:30:21.168689+00:00"


@pytest.mark.parametrize(("run_id", "queries"), [("plain", 12), ("systems", 9), ("labelled", 9)])
def test_runs_are_whole(summary: Any, run_id: str, queries: int) -> None:
    found = summary("runs", "verify", "store", run_id)
    assert found["faults"] == []
    assert (found["queries"], found["rejected"], found["planned"]) == (queries, 0, queries)


def test_a_damaged_file_is_noticed(summary: Any) -> None:
    (file,) = Path("store/runs/plain/data").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert summary("runs", "verify", "store", "plain", exit_code=10)["faults"]


@pytest.mark.parametrize("run_id", ["plain", "systems", "labelled", "held"])
def test_the_fingerprint_is_that_of_what_the_run_is_made_of(run_id: str) -> None:
    """Were it another, no run of an earlier version could be gone on with."""
    run = run_of(run_id)
    assert digest(run.spec.made_of) == run.spec.fingerprint == run.finished()["fingerprint"]
    run.check_made_of(run.spec.made_of)


def test_a_run_is_shown_with_its_totals_and_its_verdict(summary: Any) -> None:
    shown = summary("runs", "show", "store", "plain")
    final = shown["final"]
    assert final["rejects"] == {"empty_query": 1, "missing_query_id": 1, "null_query": 1}
    assert (final["log_rows"], final["weight"], final["pairs"]) == (21, 18.0, 88)
    assert (final["gated"], final["pairs_skipped"], final["judged"]) == (1, 8, 9)
    assert final["mode"] == "torch fp32"
    assert final["cache"]["scored_pairs"] == 88
    assert final["metrics"]["reranked"]["nDCG@10"] == RERANKED_NDCG
    assert shown["guards"]["passed"]
    assert [each["name"] for each in shown["guards"]["guards"]] == ["max_rejects", "min_queries"]
    assert shown["spec"]["config"]["reranker"]["gate"]["threshold"] == 0.015
    assert shown["spec"]["generations"] == {"index": "de29ce7cc2143216-8d8de843"}


def test_a_run_that_a_guard_held_back_stays_held_back(summary: Any) -> None:
    found = summary("runs", "publish", "store", "held", exit_code=16)
    assert (found["published"], found["latest"]) == (False, "plain")
    forced = summary("runs", "publish", "store", "held", "--force")
    assert (forced["published"], forced["latest"]) == (True, "held")
    assert latest_run(open_root("store"), "tiny").run_id == "held"


def test_commits_plan_and_decisions_are_read() -> None:
    run = run_of("plain")
    (commit,) = run.commits([CommitName.parse(name) for name in run.finished()["commits"]])
    assert (commit.name.start, commit.name.stop, commit.name.epoch) == (0, 12, 1)
    assert commit.results is not None
    assert (commit.results.rows, commit.rejects, commit.reject_reasons) == (12, None, {})
    sums = total([commit], "sums")
    assert (sums["queries"], sums["judged"], sums["pairs"], sums["scored_pairs.1"]) == (
        12,
        9,
        96,
        88,
    )
    assert sums["reranked/nDCG@10"] == pytest.approx(9 * RERANKED_NDCG)
    assert run.blocks() == [(0, 12)]
    plan = read_block(run.root, "plain", 0)
    assert plan.schema.equals(schema.PLAN)
    assert plan.column("query_ids").to_pylist()[0] == ["q00"]
    owner = run.last_owner()
    assert owner is not None
    assert (owner.host, owner.pid) == ("maker", 7)
    mode = read_decision(run, "mode", 1, ["runtime", "format"])
    assert mode is not None
    assert (mode["runtime"], mode["format"]) == ("torch", "fp32")
    known = read_decision(run_of("systems"), "cache", 1, ["segments"])
    assert known is not None
    assert (known["pairs"], len(known["segments"])) == (88, 1)


def test_a_run_that_an_earlier_version_left_unfinished_is_gone_on_with() -> None:
    """Its blocks are done: nothing of them is done again."""
    listed = run_of("plain").finished()["results"]
    Path("store/runs/plain/final.json").unlink()
    run = run_of("plain")
    run.claim()
    assert run.epoch == 2
    assert run.blocks_to_do(run.done()) == []
    final = run.finish({"queries": 12})
    assert (final["results"], final["epoch"]) == (listed, 2)


def test_results_are_opened_by_their_job() -> None:
    results = open_results("store", "tiny")
    assert results.run_id == "plain"
    table = results.arrow().to_table()
    assert table.schema.names == schema.results(MEASURES).names
    rows = sorted(table.to_pylist(), key=lambda row: row["qidx"])
    assert [row["qidx"] for row in rows] == list(range(12))
    assert [row["query_id"] for row in rows if "gated" in row["flags"]] == ["q06"]
    assert [len(row["results"]) for row in rows] == [5] * 12
    assert [len(row["candidates"]) for row in rows] == [8] * 12
    best = rows[0]["results"][0]
    assert (best["doc_id"], best["rank"], best["retrieval_rank"]) == ("d011", 1, 2)
    rejects = results.rejects()
    assert rejects.schema.equals(schema.REJECTS)
    assert sorted(rejects.column("reason").to_pylist()) == [
        "empty_query",
        "missing_query_id",
        "null_query",
    ]


def test_a_run_is_evaluated_again(summary: Any) -> None:
    found = summary("evaluate", "config.yaml", "--run", "latest")
    assert (found["run_id"], found["judged"], found["best"]) == ("plain", 9, "reranked")
    assert found["metrics"]["retrieval"]["nDCG@10"] == pytest.approx(RETRIEVAL_NDCG)
    assert found["metrics"]["reranked"]["nDCG@10"] == pytest.approx(RERANKED_NDCG)
    assert Path(found["report"]).is_file()


def test_a_comparison_is_evaluated_again(summary: Any) -> None:
    depth = ("--set", "retrieval.depth=15")
    found = summary("evaluate", "compare.yaml", "--run", "systems", *depth)
    assert {name: each["nDCG@10"] for name, each in found["metrics"].items()} == pytest.approx(
        {
            "retrieval": RETRIEVAL_NDCG,
            "cross": 0.1486561106874855,
            "shallow": RERANKED_NDCG,
            "cascade": 0.14485244115277135,
            "file": 0.04223264074621492,
        }
    )
    assert found["missing"] == {"file": 0}


def test_a_run_is_exported_and_looked_up(summary: Any) -> None:
    for run_id, system, rows in (("plain", "reranked", 60), ("systems", "cascade", 135)):
        words = ("export", "store", run_id, "--system", system, "--out", f"{system}.trec")
        assert summary("runs", *words)["rows"] == rows
    first = Path("reranked.trec").read_text("utf-8").splitlines()[0].split()
    assert first[:4] == ["q00", "Q0", "d011", "1"]
    summary("runs", "export", "store", "plain", "--format", "serving", "--out", "served.parquet")
    query = pq.read_table("served.parquet").column("key")[0].as_py()
    served = summary("lookup", "served.parquet", query)
    assert served["doc_ids"] == summary("lookup", "store", query, "--job", "tiny")["doc_ids"]


# --- what runs are made of and what they leave -----------------------------------------------


def test_a_flat_index_is_opened_and_searched(tmp_path: Path) -> None:
    index = opened("index", tmp_path / "cache")
    manifest = index.manifest
    assert (manifest.format, manifest.kind, manifest.documents) == (3, "Flat", 43)
    assert (manifest.dimension, manifest.bounds) == (32, ((0, 22), (22, 43)))
    assert manifest.encoder_mode["runtime"] == "torch"
    assert index.generations()[index.root.uri] == "de29ce7cc2143216-8d8de843"
    verify_files(index)
    files = index.vector_files()
    starts = [start for start, _ in manifest.bounds]
    shards = [open_shard(file, start) for file, start in zip(files, starts, strict=True)]
    vectors = stored_vectors(files[1])
    assert vectors is not None
    hits = search_all(shards, vectors[:3], 1)
    assert hits.documents[:, 0].tolist() == [22, 23, 24]
    assert index.texts().ids(np.array([0, 22, 42])) == ["d000", "d022", "d119"]
    digests = index.digests()
    assert digests is not None
    assert digests.num_rows == 43


def test_an_updated_index_is_opened_and_searched_by_words(tmp_path: Path) -> None:
    """Four documents went, four changed, three came."""
    index = opened("index-2", tmp_path / "cache")
    manifest = index.manifest
    assert (manifest.format, manifest.documents) == (4, 42)
    assert manifest.generation == "74c039175ad808b6-ba2b0dc0"
    verify_files(index)
    numbers = index.numbers()
    assert numbers is not None
    assert (len(numbers), int((numbers == -1).sum())) == (manifest.bounds[-1][1], 8)
    assert index.texts().ids(np.array([0, 41])) == ["d004", "n2"]
    assert index.texts().contents(np.array([0]))[0].split()[1:3] == ["summer", "garden"]
    assert set(searched(index, "new river stone")) >= {"n0", "n1", "n2"}


def test_the_generation_before_is_opened_by_its_name(tmp_path: Path) -> None:
    index = opened("index-2", tmp_path / "cache", "76ed91a210926ba8-9913d2b1")
    manifest = index.manifest
    assert (manifest.format, manifest.documents) == (3, 43)
    assert manifest.bm25 == Bm25Config().model_dump(mode="json")
    verify_files(index)
    assert index.texts().ids(np.array([0])) == ["d000"]
    assert len(searched(index, "river stone")) == 5


@pytest.mark.parametrize(
    ("scope", "runs", "pairs"),
    [(CROSS_ENCODER_SCOPE, ("plain", "systems"), 159), (LATE_SCOPE, ("systems",), 135)],
)
def test_cached_scores_are_found(scope: str, runs: tuple[str, ...], pairs: int) -> None:
    root = open_root("store")
    cache = ScoreCache(root, scope)
    assert all(cache.has(run_id) for run_id in runs)
    assert not cache.has("labelled")
    snapshot = cache.snapshot()
    assert snapshot.pairs == pairs
    for wanted in snapshot.segments:
        file = root.local(wanted.key)
        assert file is not None
        assert ScoreSegment(Path(file), wanted.bytes).pairs == pairs


def test_a_label_dataset_is_read() -> None:
    labels = read_labels("labels")
    assert {split: len(queries) for split, queries in labels.splits.items()} == {
        "train": 3,
        "dev": 4,
        "test": 2,
    }
    assert sum(labels.rows(split) for split in labels.splits) == 81
    card = json.loads(Path("labels/card.json").read_text("utf-8"))
    assert (card["run"], card["source"]["run"]) == ("labelled", "plain")
    assert labels.fingerprint == card["fingerprint"] == run_of("labelled").spec.fingerprint


def test_a_label_run_keeps_what_its_card_tells(summary: Any) -> None:
    final = summary("runs", "show", "store", "labelled")["final"]
    assert final["labels"]["leak_check"]["passed"]
    assert final["labels"]["split_queries"] == {"train": 3, "dev": 4, "test": 2}
    assert final["labels"]["removed"]["share"] == 12
    assert final["pairs"] == 81
