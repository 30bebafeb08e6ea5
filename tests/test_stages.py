"""Stages on small tables: queries that cannot go on, and the order of the rest."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rerank_batch import schema, stages
from rerank_batch.corpus import TextStore, shard_bounds, write_texts
from rerank_batch.models import ModelName
from rerank_batch.rerankers.base import PairScores, ScorerOptions
from rerank_batch.stages import AssembleResults, Rerank, read_vectors, write_vectors
from rerank_batch.storage import open_root


@pytest.fixture
def index(tmp_path: Path) -> Any:
    """What stages ask of an index: a text store, here of documents d0 to d9."""
    table = pa.table({name: [f"{name[0]}{n}" for n in range(10)] for name in _TEXT_COLUMNS})
    table = table.set_column(0, "doc_id", pa.array([f"d{n}" for n in range(10)]))
    table = table.cast(pa.schema([(name, pa.large_string()) for name in _TEXT_COLUMNS]))
    bounds = shard_bounds(10, 3)
    store = TextStore(write_texts(table, bounds, tmp_path), bounds)
    return SimpleNamespace(texts=lambda: store)


_TEXT_COLUMNS = ("doc_id", "title", "text")


def retrieved(documents: list[list[int]], rejects: list[str | None] | None = None) -> pa.Table:
    rows = [
        {
            "qidx": n,
            "query_id": f"q{n}",
            "query_ids": [f"q{n}"],
            "query": f"text {n}",
            "weight": 1.0,
            "flags": [],
            "reject": rejects[n] if rejects else None,
            "documents": listed,
            "retrieval_scores": [1.0 - 0.1 * i for i in range(len(listed))],
        }
        for n, listed in enumerate(documents)
    ]
    return pa.Table.from_pylist(rows, schema=schema.RETRIEVED)


def rerank_with(index: Any, monkeypatch: pytest.MonkeyPatch, scores: list[list[float]]) -> Rerank:
    """The stage with a scorer that answers from a list, and remembers what it was asked."""

    class Fixed:
        def score(self, queries, documents):
            self.asked = documents
            values = [np.array(row, np.float32) for row in scores]
            return PairScores(values, [np.zeros(len(row), bool) for row in values])

    fixed = Fixed()
    monkeypatch.setattr("rerank_batch.rerankers.load_scorer", lambda *_: fixed)
    monkeypatch.setattr(stages, "model_folder", Path)
    stage = Rerank(ModelName("cross-encoder", "x"), ScorerOptions(), index)
    assert stage._scorer is fixed
    return stage


def test_the_scorer_reads_title_and_text_of_each_candidate(index, monkeypatch):
    stage = rerank_with(index, monkeypatch, [[1, 2], []])
    stage(retrieved([[7, 0], []]))
    assert stage._scorer.asked == [["t7 t7", "t0 t0"], []]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_rejects_its_query_and_no_other(index, monkeypatch, bad):
    table = retrieved([[1, 2], [3, 4], [5, 6]])
    out = rerank_with(index, monkeypatch, [[1, 2], [bad, 1], [2, 1]])(table)
    assert out.column("reject").to_pylist() == [None, "non_finite_score", None]
    assembled = AssembleResults(index, 5, ("RR@10",), {"q1": {"d3": 1}})(out)
    assert [len(hits) for hits in assembled.column("results").to_pylist()] == [2, 0, 2]
    assert assembled.column("metrics")[1].as_py()["reranked"]["RR@10"] == 0.0


def test_results_follow_the_total_order_and_remember_the_first_stage(index, monkeypatch):
    out = rerank_with(index, monkeypatch, [[0.5, 0.9, 0.5]])(retrieved([[8, 2, 3]]))
    (hits,) = AssembleResults(index, 2, ("RR@10",), None)(out).column("results").to_pylist()
    assert [(h["doc_id"], h["rank"], h["retrieval_rank"]) for h in hits] == [
        ("d2", 1, 2),
        ("d3", 2, 3),  # ties with d8, whose id comes later
    ]


def test_candidates_keep_full_depth_in_retrieval_order_with_both_scores(index, monkeypatch):
    out = rerank_with(index, monkeypatch, [[0.5, 0.9, 0.5]])(retrieved([[8, 2, 3]]))
    (listed,) = AssembleResults(index, 1, ("RR@10",), None)(out).column("candidates").to_pylist()
    assert [hit["doc_id"] for hit in listed] == ["d8", "d2", "d3"]
    assert [hit["score"] for hit in listed] == pytest.approx([0.5, 0.9, 0.5])


def test_a_query_judged_under_several_ids_is_measured_on_all_of_them(index, monkeypatch):
    table = retrieved([[8, 2]])
    ids = pa.array([["q0", "alias"]], pa.list_(pa.string()))
    table = table.set_column(2, "query_ids", ids)
    out = rerank_with(index, monkeypatch, [[0.1, 0.9]])(table)
    metrics = AssembleResults(index, 1, ("RR@10",), {"alias": {"d8": 1}})(out).column("metrics")
    assert metrics[0].as_py() == {"retrieval": {"RR@10": 1.0}, "reranked": {"RR@10": 0.5}}


def test_vectors_are_read_back_across_the_borders_of_their_blocks(tmp_path):
    root = open_root(str(tmp_path))
    vectors = np.arange(40, dtype=np.float32).reshape(10, 4)
    for start, stop in ((0, 3), (3, 7), (7, 10)):
        flat = pa.array(vectors[start:stop].tolist(), pa.list_(pa.float32()))
        write_vectors(root, "build", pa.table({"document": range(start, stop), "vector": flat}))
    np.testing.assert_array_equal(read_vectors(root, "build", 2, 9), vectors[2:9])
