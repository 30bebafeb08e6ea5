"""A scorer with a memory: what it knows it does not score again, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_batch import tally
from rerank_batch.errors import StorageError
from rerank_batch.progress import pairs
from rerank_batch.rerankers.base import PairScores
from rerank_batch.rerankers.cached import KNOWN, SCORED, CachedScorer, CacheUse
from rerank_batch.score_cache import ScoreCache, ScoreSegment, text_keys
from rerank_batch.storage import NodeCache, Root, open_root

QUERIES = ["river", "stone", "", "river"]
LISTS = [["a", "b", "c"], [], ["a", "Ünïcode, 東京"], ["c", "new", "a", "new"]]


class Counting:
    """Scores that depend on both texts, and the pairs that were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, queries: Any, documents: Any) -> PairScores:
        self.asked += [(q, d) for q, ds in zip(queries, documents, strict=True) for d in ds]
        keys = [
            text_keys([f"{q}|{d}" for d in ds]) for q, ds in zip(queries, documents, strict=True)
        ]
        values = [(key[:, 0] / 2**64).astype(np.float32) for key in keys]
        return PairScores(values, [(key[:, 1] % 2).astype(bool) for key in keys])


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def _own_events() -> None:
    tally.drain()


def night(
    root: Root, tmp_path: Path, run_id: str, queries: Any, lists: Any, listwise: bool = False
) -> Any:
    """A run that scores these lists in two blocks and adds what is new: results, pairs, notes."""
    cache, counting = ScoreCache(root, "scope"), Counting()
    use = CacheUse(
        root,
        NodeCache(tmp_path / "node", 1 << 30),
        cache.snapshot().segments,
        f"runs/{run_id}/",
        listwise=listwise,
    )
    scorer = CachedScorer(counting, use)
    halves = [scorer.score(queries[part], lists[part]) for part in (slice(0, 2), slice(2, None))]
    noted = tally.drain()
    cache.add(run_id, [Path(root.path(f"runs/{run_id}/{file['key']}")) for file in noted.scores])
    return (
        [*halves[0].values, *halves[1].values],
        [*halves[0].truncated, *halves[1].truncated],
        counting.asked,
        noted,
    )


def test_the_second_night_scores_what_is_new_and_gives_the_same(root, tmp_path):
    values, truncated, asked, noted = night(root, tmp_path, "one", QUERIES, LISTS)
    assert sorted(asked) == sorted((q, d) for q, ds in zip(QUERIES, LISTS, strict=True) for d in ds)
    assert noted.sums[f"{KNOWN}.1"] == 0
    assert noted.sums[f"{SCORED}.1"] == 9

    again, cut, asked, noted = night(root, tmp_path, "two", QUERIES, LISTS)
    assert asked == []
    assert noted.sums == {f"{KNOWN}.1": 9}
    assert noted.scores == []
    for one, other in zip([*values, *truncated], [*again, *cut], strict=True):
        assert one.tobytes() == other.tobytes()

    lists = [["a", "b", "changed"], ["a"], ["a"], ["new", "c"]]
    expected = Counting().score(QUERIES, lists)
    values, truncated, asked, _ = night(root, tmp_path, "three", QUERIES, lists)
    assert asked == [("river", "changed"), ("stone", "a")]
    for one, other in zip(
        [*values, *truncated], [*expected.values, *expected.truncated], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_progress_tells_what_needs_no_scoring(root, tmp_path):
    pairs.forget()
    lists = [["a", "b", "changed"], ["a"], ["a"], ["new", "c"]]
    night(root, tmp_path, "one", QUERIES, LISTS)
    with pairs.reading(1, 7):
        night(root, tmp_path, "two", QUERIES, lists)
    assert pairs.counted() == {1: pairs.Pairs(requested=7, known=5, scored=2)}


def test_scores_of_a_listwise_model_count_for_the_same_list_only(root, tmp_path):
    lists = [["a", "b", "c"], ["a", "b"], ["a"], []]
    values, *_ = night(root, tmp_path, "one", QUERIES, lists, listwise=True)
    again, _, asked, _ = night(root, tmp_path, "two", QUERIES, lists, listwise=True)
    assert asked == []
    assert [row.tobytes() for row in again] == [row.tobytes() for row in values]
    changed = [["a", "c", "b"], ["a", "b"], ["a", "d"], ["a"]]
    _, _, asked, _ = night(root, tmp_path, "three", QUERIES, changed, listwise=True)
    new = ((QUERIES[n], changed[n]) for n in (0, 2, 3))
    assert asked == [(query, document) for query, listed in new for document in listed]


@pytest.mark.parametrize("listwise", [False, True])
def test_a_query_that_fell_back_is_handed_on_and_not_remembered(
    root, tmp_path, monkeypatch, listwise
):
    scored = Counting().score

    def failing(self: Any, queries: Any, documents: Any) -> PairScores:
        found = scored(queries, documents)
        failed = frozenset(n for n, query in enumerate(queries) if query == "stone")
        return PairScores(found.values, found.truncated, failed)

    use = CacheUse(root, NodeCache(tmp_path / "x", 1 << 30), (), "runs/x/", listwise=listwise)
    with monkeypatch.context() as context:
        context.setattr(Counting, "score", failing)
        found = CachedScorer(Counting(), use).score(["river", "stone"], [["a", "b"], ["b", "c"]])
        assert found.fell_back == {1}
        tally.drain()
        night(root, tmp_path, "one", ["river", "stone"], [["a", "b"], ["b", "c"]], listwise)
    lists = [["a", "b"], ["b", "c"]]
    _, _, asked, _ = night(root, tmp_path, "two", ["river", "stone"], lists, listwise)
    assert asked == [("stone", "b"), ("stone", "c")]


def test_a_score_that_is_not_finite_is_handed_on_and_not_remembered(root, tmp_path, monkeypatch):
    scored = Counting().score

    def broken(self: Any, queries: Any, documents: Any) -> PairScores:
        found = scored(queries, documents)
        for q, listed in enumerate(documents):
            found.values[q][[document == "b" for document in listed]] = np.nan
        return found

    with monkeypatch.context() as context:
        context.setattr(Counting, "score", broken)
        values, *_ = night(root, tmp_path, "one", ["river", "stone"], [["a", "b"], ["b", "c"]])
    assert [np.isnan(row).tolist() for row in values] == [[False, True], [True, False]]
    _, _, asked, _ = night(root, tmp_path, "two", ["river", "stone"], [["a", "b"], ["b", "c"]])
    assert asked == [("river", "b"), ("stone", "b")]


def test_where_new_scores_cannot_be_written_the_run_goes_on_and_says_so(
    root, tmp_path, monkeypatch
):
    def full(self: Any, key: str, local: Path) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(root), "publish", full)
    scorer = CachedScorer(Counting(), CacheUse(root, NodeCache(tmp_path, 1), (), "runs/one/"))
    found = scorer.score(["river"], [["a", "b"]])
    assert np.isfinite(found.values[0]).all()
    noted = tally.drain()
    assert noted.scores == []
    assert noted.counts == {"score cache: new scores were not kept (StorageError)": 1}


def test_new_scores_are_named_with_what_the_commit_needs_to_know(root, tmp_path):
    _, _, _, noted = night(root, tmp_path, "one", QUERIES, LISTS)
    for file in noted.scores:
        segment = ScoreSegment(Path(root.path(f"runs/one/{file['key']}")), file["bytes"])
        assert segment.pairs <= file["rows"], "a pair that comes twice is kept once"
