"""A block is committed whole, in the order of its queries, and once."""

import json
import math

import pyarrow as pa
import pytest

from rerank_batch import schema
from rerank_batch.errors import RerankBatchError
from rerank_batch.runs import Run
from rerank_batch.runs.commit import BlockDone, commit_block, sums_of
from rerank_batch.storage import open_root
from tests.support import helpers


def test_sums_count_rejected_judged_queries_as_judged():
    result = schema.results(("RR@10",))
    rows = [row(0, None, 1.0), row(1, "non_finite_score", 0.0), row(2, None, None)]
    block = pa.Table.from_pylist(rows, schema=result.append(schema.REJECT_FIELD))
    sums = sums_of(block)
    assert (sums["queries"], sums["judged"], sums["pairs"], sums["weight"]) == (2, 2, 2, 6)
    assert math.isclose(sums["reranked/RR@10"], 1.0)


def block_of(*rows):
    result = schema.results(("RR@10",)).append(schema.REJECT_FIELD)
    table = pa.Table.from_pylist(list(rows), schema=result)
    side = [
        json.dumps(
            [{"seconds": {"rerank": 0.5 + n}, "counts": {"noted": 1}, "sums": {}, "scores": []}]
        )
        for n in range(table.num_rows)
    ]
    return table.append_column(schema.SIDE, pa.array([*side[:-1], None], pa.string()))


@pytest.fixture
def run(tmp_path):
    run = Run.create(open_root(str(tmp_path)), "run-1", helpers.spec(planned=6, block_rows=3))
    run.claim()
    return run


@pytest.mark.parametrize("keep", [False, True])
def test_a_block_is_committed_in_the_order_of_its_queries(run, keep):
    block = block_of(row(5, None, 1.0), row(3, None, 0.5), row(4, "non_finite_score", 0.0))
    done = commit_block(block, writer=run.writer(), keep=keep)
    (commit,) = run.commits()
    assert BlockDone.of(done.to_pylist()[0]) == BlockDone(
        3, 1, start=3, sums=commit.sums, reject_reasons={"non_finite_score": 1}
    )
    assert (commit.name.start, commit.name.stop, commit.name.epoch) == (3, 6, 1)
    assert commit.seconds == {"rerank": 2.0}
    assert commit.events == {"noted": 2}
    assert commit.reject_reasons == {"non_finite_score": 1}
    assert commit.sums["queries"] == 2
    results = run.read_table(vars(commit.results))
    assert results.schema.names == schema.results(("RR@10",)).names
    assert results.column("qidx").to_pylist() == [3, 5]
    (reject,) = run.read_table(vars(commit.rejects)).to_pylist()
    text = "text" if keep else None
    expected = {"qidx": 4, "query_id": "q4", "reason": "non_finite_score", "rows": 1, "query": text}
    assert reject == expected


def test_a_block_that_is_committed_twice_counts_once(run):
    block = block_of(row(0, None, 1.0), row(1, "non_finite_score", None), row(2, None, None))
    first, second = (commit_block(block, writer=run.writer(), keep=False) for _ in range(2))
    assert first == second
    assert len(run.commits()) == 1


@pytest.mark.parametrize("numbers", [(0, 2), (0, 1, 3), (0, 1, 1), (0, 0, 2)])
def test_a_block_that_lost_or_doubled_a_query_is_not_committed(run, numbers):
    block = block_of(*[row(number, None, 1.0) for number in numbers])
    with pytest.raises(RerankBatchError, match="a block holds"):
        commit_block(block, writer=run.writer(), keep=False)
    assert run.commits() == []


def row(qidx, reject, value):
    candidates = (
        [] if reject else [{"doc_id": "d", "retrieval_score": 1.0, "rank": 1, "score": 1.0}]
    )
    metrics = None
    if value is not None:
        metrics = {system: {"RR@10": value} for system in schema.SYSTEMS}
    return {
        "qidx": qidx,
        "query_id": f"q{qidx}",
        "query_ids": [f"q{qidx}"],
        "query": "text",
        "weight": 3.0,
        "flags": [],
        "results": [],
        "candidates": candidates,
        "metrics": metrics,
        "reject": reject,
    }
