"""Poison batches: the queries that fail are rejected, everybody else gets what they would have."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rerank_batch import schema, tally
from rerank_batch.data.text_store import TextStore, shard_bounds, write_texts
from rerank_batch.errors import ComputeError, ModelError, RerankBatchError, StorageError
from rerank_batch.models.location import ModelName
from rerank_batch.pipeline.assemble import AssembleResults
from rerank_batch.pipeline.isolation import run_isolated
from rerank_batch.rerankers.base import PairScores, ScorerOptions
from rerank_batch.rerankers.stages import Rerank, ScorerUse
from rerank_batch.retrieval.stages import EncodeQueries

POISON = "poison"
SECRET = "my diagnosis"


@pytest.fixture(autouse=True)
def no_events() -> Iterator[None]:
    tally.drain()
    yield
    tally.drain()


def retrieved(texts: list[str], rejects: dict[int, str] | None = None) -> pa.Table:
    rows = [
        {
            "qidx": n,
            "query_id": f"q{n}",
            "query_ids": [f"q{n}", f"alias{n}"],
            "query": text,
            "weight": 1.0 + n,
            "flags": ["few_candidates"],
            "reject": (rejects or {}).get(n),
            "documents": [n % 10, (n + 1) % 10],
            "retrieval_scores": [1.0, 0.5],
        }
        for n, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=schema.RETRIEVED)


class Scoring:
    """A reranker's stage in one line: each score depends on its own query only."""

    def __init__(self, fails: Callable[[list[str]], bool] = lambda texts: False) -> None:
        self.fails, self.calls = fails, 0

    def __call__(self, table: pa.Table) -> pa.Table:
        self.calls += 1
        texts = table.column("query").to_pylist()
        if self.fails(texts):
            raise ValueError(f"cannot tokenize {texts} {SECRET}")
        scores = [[[float(len(text)), float(number)]] for number, text in _numbered(table)]
        column = pa.array(scores, schema.RERANKED.field("rerank_scores").type)
        return table.append_column("rerank_scores", column)


def _numbered(table: pa.Table) -> Iterator[tuple[int, str]]:
    columns = (table.column(name).to_pylist() for name in ("qidx", "query"))
    return zip(*columns, strict=True)


def has_poison(texts: list[str]) -> bool:
    return any(POISON in text for text in texts)


def isolated(stage: Any, table: pa.Table) -> pa.Table:
    return run_isolated(stage, table, "rerank", schema.RERANKED)


def test_a_batch_that_works_is_asked_for_once() -> None:
    stage, table = Scoring(), retrieved(["a", "b"])
    assert isolated(stage, table).equals(Scoring()(table))
    assert stage.calls == 1
    assert tally.drain().counts == {}


@pytest.mark.parametrize("size", [2, 3, 8, 13])
@pytest.mark.parametrize("at", [0, 1, -1])
def test_the_query_that_fails_is_rejected_and_no_other(size: int, at: int) -> None:
    texts = [f"query {n}" for n in range(size)]
    texts[at] = f"a {POISON} word"
    table = retrieved(texts)
    out = isolated(Scoring(has_poison), table)
    expected = Scoring()(table).to_pylist()
    expected[at] |= {
        "reject": "rerank_failed:ValueError",
        "documents": expected[at]["documents"],
        "rerank_scores": [],
    }
    assert out.schema.names == schema.RERANKED.names
    assert out.to_pylist() == expected
    assert tally.drain().counts == {"batch of rerank tried again after ValueError": 1}


def test_several_queries_that_fail_are_rejected_each() -> None:
    texts = [f"{POISON} {n}" if n in (1, 2, 6) else f"query {n}" for n in range(8)]
    out = isolated(Scoring(has_poison), retrieved(texts))
    rejected = [n for n, reason in enumerate(out.column("reject").to_pylist()) if reason]
    assert rejected == [1, 2, 6]
    assert out.column("qidx").to_pylist() == list(range(8))


def test_a_batch_of_one_that_fails_is_a_reject() -> None:
    """A single query proves nothing against the stage."""
    out = isolated(Scoring(has_poison), retrieved([POISON]))
    assert out.column("reject").to_pylist() == ["rerank_failed:ValueError"]


def test_a_stage_that_fails_once_rejects_nothing_and_is_noted() -> None:
    failures = iter([True])
    stage, table = Scoring(lambda texts: next(failures, False)), retrieved(["a", "b", "c"])
    assert isolated(stage, table).equals(Scoring()(table))
    assert stage.calls == 2
    assert tally.drain().counts == {"batch of rerank tried again after ValueError": 1}
    assert tally.drain().counts == {}


def test_a_stage_that_fails_on_everything_is_broken() -> None:
    stage = Scoring(lambda texts: True)
    with pytest.raises(ComputeError, match="stage rerank fails on each of the 4 queries") as error:
        isolated(stage, retrieved([SECRET] * 4))
    assert SECRET not in str(error.value)
    assert "ValueError" in str(error.value)


def test_a_broken_stage_is_told_from_a_poisoned_batch_where_some_were_rejected_before() -> None:
    """A query that an earlier stage rejected passes with empty lists, whatever the model does."""
    table = retrieved(["a", "b", "c"], {1: "non_finite_vector"})

    def alive(texts: list[str]) -> bool:
        return texts != ["b"]

    with pytest.raises(ComputeError, match="stage rerank fails"):
        isolated(Scoring(alive), table)


def test_a_query_that_was_rejected_before_keeps_its_reason() -> None:
    table = retrieved(["a", POISON, "c"], {1: "non_finite_vector"})
    out = isolated(Scoring(has_poison), table)
    assert out.column("reject").to_pylist() == [None, "non_finite_vector", None]


@pytest.mark.parametrize("error", [StorageError, ModelError, ComputeError])
def test_errors_of_ours_pass_through_at_once(error: type[RerankBatchError]) -> None:
    calls = []

    def stage(table: pa.Table) -> pa.Table:
        calls.append(table.num_rows)
        raise error("the bucket is gone")

    with pytest.raises(error, match="the bucket is gone"):
        isolated(stage, retrieved(["a", "b"]))
    assert calls == [2]
    assert tally.drain().counts == {}


def test_an_error_of_ours_in_the_middle_of_the_search_passes_through() -> None:
    def fails(texts: list[str]) -> bool:
        if len(texts) == 1:
            raise StorageError("the bucket is gone")
        return has_poison(texts)

    with pytest.raises(StorageError, match="the bucket is gone"):
        isolated(Scoring(fails), retrieved(["a", POISON, "b", "c"]))


def test_a_stage_without_a_column_is_a_defect_and_no_poison() -> None:
    with pytest.raises(RerankBatchError, match="stage rerank: no column 'rerank_scores'"):
        isolated(lambda table: table, retrieved(["a", "b"]))


def test_what_a_query_says_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = [f"{POISON} {SECRET}", f"{SECRET} too", "c"]
    isolated(Scoring(has_poison), retrieved(texts))
    assert len(caplog.records) >= 2
    for record in caplog.records:
        told = f"{record.getMessage()} {record.args} {record.exc_info} {record.exc_text}"
        assert SECRET not in told
        assert POISON not in told
    assert not any(SECRET in name for name in tally.drain().counts)


# --- the stages as they are --------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Any:
    """What the stages ask of an index: the texts of ten documents."""
    names = ("doc_id", "title", "text")
    columns = {name: [f"{name[0]}{n}" for n in range(10)] for name in names}
    table = pa.table(columns, schema=pa.schema([(name, pa.large_string()) for name in names]))
    bounds = shard_bounds(10, 3)
    store = TextStore(write_texts(table, bounds, tmp_path), bounds)
    return SimpleNamespace(texts=lambda: store)


class Fixed:
    """A scorer of one line that cannot read one word."""

    def score(self, queries: list[str], documents: list[list[str]]) -> PairScores:
        if has_poison(queries):
            raise ValueError(queries)
        values = [np.arange(len(listed), dtype=np.float32) for listed in documents]
        return PairScores(values, [np.zeros(len(row), bool) for row in values])


def test_the_real_reranking_stage_can_be_isolated(
    index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejected rows and the others must fit together, down to which columns may be null."""
    monkeypatch.setattr("rerank_batch.rerankers.registry.load_scorer", lambda *_: Fixed())
    use = ScorerUse(1, ModelName("cross-encoder", "x"), None, ScorerOptions())
    stage = Rerank((use,), index)
    table = retrieved(["a", POISON, "b"])
    out = isolated(stage, table)
    assert out.column("reject").to_pylist() == [None, "rerank_failed:ValueError", None]
    assert out.column("rerank_scores").to_pylist() == [[[0, 1]], [], [[0, 1]]]
    assembled = AssembleResults(index, 5, ("RR@10",), {"q1": {"d1": 1}})(out)
    assert [len(hits) for hits in assembled.column("results").to_pylist()] == [2, 0, 2]
    assert assembled.column("metrics")[1].as_py()["reranked"]["RR@10"] == 0.0


def test_the_real_last_stage_can_be_isolated(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = AssembleResults(index, 5, ("RR@10",), None)
    table = Scoring()(retrieved(["a", POISON, "b"]))
    output = schema.results(("RR@10",)).append(schema.REJECT_FIELD)

    def fails(table: pa.Table) -> pa.Table:
        if has_poison(table.column("query").to_pylist()):
            raise KeyError(POISON)
        return whole(table)

    out = run_isolated(fails, table, "assemble", output)
    assert out.column("reject").to_pylist() == [None, "assemble_failed:KeyError", None]
    assert [len(hits) for hits in out.column("results").to_pylist()] == [2, 0, 2]
    assert out.column("candidates")[1].as_py() == []
    assert out.column("metrics")[1].as_py() is None


def test_the_encoding_stage_can_be_isolated() -> None:
    plan = retrieved(["a", POISON, "b"]).select(schema.PLAN.names)

    class Encoder:
        def encode_queries(self, texts: list[str]) -> Any:
            if has_poison(texts):
                raise ValueError(texts)
            return np.ones((len(texts), 4), np.float32)

    stage = EncodeQueries.__new__(EncodeQueries)
    stage._encoder = Encoder()
    out = run_isolated(stage, plan, "encode", schema.ENCODED)
    assert out.column("reject").to_pylist() == [None, "encode_failed:ValueError", None]
    assert [len(vector) for vector in out.column("vector").to_pylist()] == [4, 0, 4]
