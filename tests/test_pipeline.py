"""The boundary to Ray, seen through a recorder: what is asked of map_batches, without a cluster."""

import math

import pyarrow as pa
import pytest

from rerank_batch import schema
from rerank_batch.errors import RerankBatchError
from rerank_batch.pipeline import _Actor, map_stage, sums_of
from rerank_batch.pools import Pool
from rerank_batch.stages import StageSpec


class Recorder:
    """Takes the place of a Ray Dataset and remembers how it was called."""

    def map_batches(self, function, **arguments):
        self.function, self.arguments = function, arguments
        return self


class AddOne:
    """A stage of one line."""

    def __init__(self, column, threads=1):
        self.column, self.threads = column, threads

    def __call__(self, table):
        return table.append_column(self.column, pa.array([self.threads] * table.num_rows))


def spec(pool, output=None, batch_size=None):
    output = output or pa.schema([("x", pa.int64()), ("y", pa.int64())])
    return StageSpec("rerank", AddOne, {"column": "y"}, pool, output, batch_size)


def test_a_cpu_pool_hands_over_whole_blocks():
    asked = map_stage(Recorder(), spec(Pool(3, 1.5, threads=2), batch_size=64))
    assert asked.function.__name__ == "rerank"
    assert asked.arguments["compute"].min_size == asked.arguments["compute"].max_size == 3
    assert asked.arguments["num_cpus"] == 1.5
    assert asked.arguments["batch_size"] is None
    assert asked.arguments["batch_format"] == "pyarrow"


def test_a_gpu_pool_names_the_block_size_because_ray_insists_on_one():
    asked = map_stage(Recorder(), spec(Pool(2, 1, num_gpus=1), batch_size=64))
    assert (asked.arguments["num_gpus"], asked.arguments["batch_size"]) == (1, 64)


def test_restarts_and_retries_are_bounded():
    """Ray Data's default is to retry for ever, also a batch that always runs out of memory."""
    asked = map_stage(Recorder(), spec(Pool(1, 1)))
    assert 0 < asked.arguments["max_restarts"] < 10
    assert 0 < asked.arguments["max_task_retries"] < 10


def test_an_actor_times_its_stage_and_passes_earlier_times_on():
    actor = _Actor(spec(Pool(1, 1, threads=7)), {"column": "y"})
    out = actor(pa.table({"x": [1, 2], "seconds.encode": [0.5, 0.5]}))
    assert out.column("y").to_pylist() == [7, 7]
    assert out.column("seconds.encode").to_pylist() == [0.5, 0.5]
    assert all(seconds > 0 for seconds in out.column("seconds.rerank").to_pylist())


def test_a_stage_that_loses_rows_or_columns_is_caught_at_its_edge():
    class LoseARow(AddOne):
        def __call__(self, table):
            return super().__call__(table).slice(1)

    losing = StageSpec("rerank", LoseARow, {}, Pool(1, 1), pa.schema([("x", pa.int64())]))
    with pytest.raises(RerankBatchError, match="made 1 rows of 2"):
        _Actor(losing, {"column": "y"})(pa.table({"x": [1, 2]}))
    wrong = spec(Pool(1, 1), pa.schema([("x", pa.int64()), ("z", pa.int64())]))
    with pytest.raises(RerankBatchError, match="stage rerank: no column 'z'"):
        _Actor(wrong, {"column": "y"})(pa.table({"x": [1, 2]}))


def test_sums_count_rejected_judged_queries_as_judged():
    result = schema.results(("RR@10",))
    rows = [row(0, None, 1.0), row(1, "non_finite_score", 0.0), row(2, None, None)]
    block = pa.Table.from_pylist(rows, schema=result.append(schema.REJECT_FIELD))
    sums = sums_of(block)
    assert (sums["queries"], sums["judged"], sums["pairs"], sums["weight"]) == (2, 2, 2, 6)
    assert math.isclose(sums["reranked/RR@10"], 1.0)


def row(qidx, reject, value):
    candidates = [] if reject else [{"doc_id": "d", "retrieval_score": 1.0, "score": 1.0}]
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
