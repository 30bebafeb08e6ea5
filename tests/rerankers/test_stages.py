"""Reranking and what is assembled of it: queries that cannot go on, and the order of the rest."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rerank_batch import schema, tally
from rerank_batch.data.text_store import TextStore, shard_bounds, write_texts
from rerank_batch.models.location import ModelName
from rerank_batch.pipeline.assemble import AssembleResults
from rerank_batch.rerankers.base import PairScores, ScorerOptions
from rerank_batch.rerankers.cascade import pairs_of, skipped_of
from rerank_batch.rerankers.stages import Rerank, ScorerUse


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


class Fixed:
    """A scorer that answers from a list, and remembers what it was asked."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.scores, self.asked = scores, []

    def score(self, queries, documents):
        self.asked = documents
        values = [np.array(row, np.float32) for row in self.scores]
        return PairScores(values, [np.zeros(len(row), bool) for row in values])


def rerank_with(index: Any, monkeypatch: pytest.MonkeyPatch, scores: list[list[float]]) -> Rerank:
    return cascade(index, monkeypatch, (Fixed(scores), None))


def test_the_scorer_reads_title_and_text_of_each_candidate(index, monkeypatch):
    scorer = Fixed([[1, 2], []])
    cascade(index, monkeypatch, (scorer, None))(retrieved([[7, 0], []]))
    assert scorer.asked == [["t7 t7", "t0 t0"], []]


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


class Lengths:
    """A scorer that prefers what comes late in the alphabet; it remembers what it was asked."""

    def __init__(self, factor: float, fails: str | None = None) -> None:
        self.factor, self.fails, self.asked = factor, fails, []

    def score(self, queries, documents):
        self.asked.append(documents)
        values = [
            np.array([self.factor * ord(text[1]) for text in listed], np.float32)
            for listed in documents
        ]
        fell_back = frozenset(n for n, query in enumerate(queries) if query == self.fails)
        return PairScores(values, [np.zeros(len(row), bool) for row in values], fell_back)


def cascade(index: Any, monkeypatch: pytest.MonkeyPatch, *scorers: Any) -> Rerank:
    """The stage with those scorers; each is given with its depth."""
    waiting = [scorer for scorer, _ in scorers]
    monkeypatch.setattr("rerank_batch.rerankers.registry.load_scorer", lambda *_: waiting.pop(0))
    name = ModelName("cross-encoder", "x")
    return Rerank(
        tuple(
            ScorerUse(number, name, None, ScorerOptions(), depth)
            for number, (_, depth) in enumerate(scorers, start=1)
        ),
        index,
    )


def test_each_stage_reads_the_best_of_the_one_before_and_every_score_is_kept(index, monkeypatch):
    cheap, dear = Lengths(1), Lengths(-1)
    stage = cascade(index, monkeypatch, (cheap, 4), (dear, 2))
    tally.drain()
    out = stage(retrieved([[5, 9, 1, 7, 8]]))
    assert cheap.asked == [[["t5 t5", "t9 t9", "t1 t1", "t7 t7"]]]
    assert dear.asked == [[["t9 t9", "t7 t7"]]]
    sums = tally.drain().sums
    assert (sums[pairs_of(1)], sums[pairs_of(2)]) == (4, 2)
    table = AssembleResults(index, 2, ("RR@10",), {"q0": {"d5": 1}}, stages=2)(out)
    (hits,), (listed,) = (table.column(name).to_pylist() for name in ("results", "candidates"))
    assert [hit["doc_id"] for hit in hits] == ["d7", "d9"]
    by_rank = sorted(listed, key=lambda hit: hit["rank"])
    # What the last stage read, then what the first one read, then what none did.
    assert [hit["doc_id"] for hit in by_rank] == ["d7", "d9", "d5", "d1", "d8"]
    seven, nine, five, one = map(float, map(ord, "7951"))
    assert [hit["stage_scores"] for hit in by_rank] == [
        [seven, -seven],
        [nine, -nine],
        [five, None],
        [one, None],
        [None, None],
    ]
    assert [hit["score"] for hit in by_rank] == [-seven, -nine, five, one, None]
    assert table.column("metrics")[0].as_py()["reranked"]["RR@10"] == pytest.approx(1 / 3)


def test_a_cascade_may_be_spread_over_two_stages(index, monkeypatch):
    """As where the second is a service, which has an actor of its own."""
    together = cascade(index, monkeypatch, (Lengths(1), 4), (Lengths(-1), 2))
    first = cascade(index, monkeypatch, (Lengths(1), 4))
    second = cascade(index, monkeypatch, (Lengths(-1), 2))
    table = retrieved([[5, 9, 1, 7, 8], [2], []], [None, None, "bad"])
    assert second(first(table)).equals(together(table))


def test_no_stage_reads_a_query_that_retrieval_is_sure_of(index, monkeypatch):
    scorer = Lengths(1)
    table = retrieved([[5, 9], [1, 2, 3]])
    flags = pa.array([[], ["gated"]], pa.list_(pa.string()))
    tally.drain()
    out = cascade(index, monkeypatch, (scorer, 2))(table.set_column(7, "flags", flags))
    assert scorer.asked == [[["t5 t5", "t9 t9"], []]]
    assert tally.drain().sums[skipped_of(1)] == 2, "of three candidates it would have read two"
    results = AssembleResults(index, 2, ("RR@10",), None)(out).column("results").to_pylist()
    assert [[hit["doc_id"] for hit in hits] for hits in results] == [["d9", "d5"], ["d1", "d2"]]
    assert [hit["score"] for hit in results[1]] == pytest.approx([1.0, 0.9]), "retrieval's own"


def test_a_query_without_a_usable_answer_keeps_the_order_it_had(index, monkeypatch):
    first, second = Lengths(1), Lengths(-1, fails="text 0")
    out = cascade(index, monkeypatch, (first, None), (second, None))(retrieved([[5, 9], [5, 9]]))
    assert out.column("flags").to_pylist() == [["fell_back"], []]
    table = AssembleResults(index, 2, ("RR@10",), None, stages=2)(out)
    results = table.column("results").to_pylist()
    assert [[hit["doc_id"] for hit in hits] for hits in results] == [["d9", "d5"], ["d5", "d9"]]


def test_without_a_reranker_results_are_those_of_retrieval(index):
    table = AssembleResults(index, 2, ("RR@10",), {"q0": {"d9": 1}})(retrieved([[5, 9, 1]]))
    (hits,), (listed,) = (table.column(name).to_pylist() for name in ("results", "candidates"))
    assert [hit["doc_id"] for hit in hits] == ["d5", "d9"]
    assert [hit["score"] for hit in listed] == [None] * 3
    metrics = table.column("metrics")[0].as_py()
    assert metrics["reranked"] == metrics["retrieval"] == {"RR@10": 0.5}


def test_a_query_judged_under_several_ids_is_measured_on_all_of_them(index, monkeypatch):
    table = retrieved([[8, 2]])
    ids = pa.array([["q0", "alias"]], pa.list_(pa.string()))
    table = table.set_column(2, "query_ids", ids)
    out = rerank_with(index, monkeypatch, [[0.1, 0.9]])(table)
    metrics = AssembleResults(index, 1, ("RR@10",), {"alias": {"d8": 1}})(out).column("metrics")
    assert metrics[0].as_py() == {"retrieval": {"RR@10": 1.0}, "reranked": {"RR@10": 0.5}}
