"""The boundary to Ray, seen through a recorder: what is asked of map_batches, without a cluster."""

import json
import math

import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from rerank_batch import schema
from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.carried import Carried
from rerank_batch.ray_backend.execution import (
    BlockDone,
    _Actor,
    _clear_errors,
    _commit_block,
    map_stages,
    sums_of,
)
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.tally import count, drain
from tests.support import helpers


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
    asked = map_stages(Recorder(), [spec(Pool(3, 1.5, threads=2), batch_size=64)])
    assert asked.function.__name__ == "rerank"
    assert asked.arguments["compute"].min_size == asked.arguments["compute"].max_size == 3
    assert asked.arguments["num_cpus"] == 1.5
    assert asked.arguments["batch_size"] is None
    assert asked.arguments["batch_format"] == "pyarrow"


def test_a_gpu_pool_names_the_block_size_because_ray_insists_on_one():
    asked = map_stages(Recorder(), [spec(Pool(2, 1, num_gpus=1), batch_size=64)])
    assert (asked.arguments["num_gpus"], asked.arguments["batch_size"]) == (1, 64)


def test_restarts_are_bounded_and_retries_are_not():
    """Ray Data's default is to restart for ever, also where a batch always runs out of memory.
    Retries fail at once until a node that died is missed, so that any number may be too few."""
    asked = map_stages(Recorder(), [spec(Pool(1, 1))])
    assert 0 < asked.arguments["max_restarts"] < 10
    assert asked.arguments["max_task_retries"] == -1


def test_an_actor_times_its_stage_and_passes_earlier_times_on():
    actor = _Actor([spec(Pool(1, 1, threads=7))], [{"column": "y"}])
    before = {"seconds": {"encode": 0.5}, "counts": {"halved": 2}, "sums": {}, "scores": []}
    given = json.dumps([before])
    out = actor(pa.table({"x": [1, 2], "side": pa.array([given, None], pa.string())}))
    assert out.column("y").to_pylist() == [7, 7]
    assert out.column_names == ["x", "y", "side"]
    first, second = out.column("side").to_pylist()
    passed_on, told = json.loads(first)
    assert passed_on == before
    assert 0 < told["seconds"]["rerank"] < 10
    assert second is None, "what travels beside a block would be counted twice"


def test_an_actor_hands_on_what_happened_once():
    drain()
    actor = _Actor([spec(Pool(1, 1))], [{"column": "y"}])
    count("a batch was tried again")
    first, second = (
        json.loads(actor(pa.table({"x": [1, 2]})).column("side")[0].as_py()) for _ in range(2)
    )
    assert first[0]["counts"] == {"a batch was tried again": 1}
    assert second[0]["counts"] == {}


def test_an_actor_isolates_the_query_that_fails():
    class Fails:
        def __init__(self, threads=1):
            pass

        def __call__(self, table):
            if 5 in table.column("qidx").to_pylist():
                raise ValueError("query 5")
            return table

    output = pa.schema([("qidx", pa.int64()), ("reject", pa.string())])
    drain()
    actor = _Actor([StageSpec("rerank", Fails, {}, Pool(1, 1), output)], [{}])
    out = actor(pa.table({"qidx": [4, 5, 6], "reject": pa.nulls(3, pa.string())}))
    assert out.column("reject").to_pylist() == [None, "rerank_failed:ValueError", None]
    (told,) = json.loads(out.column("side")[0].as_py())
    assert told["counts"] == {"batch of rerank tried again after ValueError": 1}


def test_a_stage_that_loses_rows_or_columns_is_caught_at_its_edge():
    class LoseARow(AddOne):
        def __call__(self, table):
            return super().__call__(table).slice(1)

    losing = StageSpec("rerank", LoseARow, {}, Pool(1, 1), pa.schema([("x", pa.int64())]))
    with pytest.raises(Carried, match="RerankBatchError: stage rerank made 1 rows of 2"):
        _Actor([losing], [{"column": "y"}])(pa.table({"x": [1, 2]}))
    wrong = spec(Pool(1, 1), pa.schema([("x", pa.int64()), ("z", pa.int64())]))
    with pytest.raises(Carried, match="RerankBatchError: stage rerank: no column 'z'"):
        _Actor([wrong], [{"column": "y"}])(pa.table({"x": [1, 2]}))


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
    done = _commit_block(block, writer=run.writer(), keep=keep)
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
    first, second = (_commit_block(block, writer=run.writer(), keep=False) for _ in range(2))
    assert first == second
    assert len(run.commits()) == 1


@pytest.mark.parametrize("numbers", [(0, 2), (0, 1, 3), (0, 1, 1), (0, 0, 2)])
def test_a_block_that_lost_or_doubled_a_query_is_not_committed(run, numbers):
    block = block_of(*[row(number, None, 1.0) for number in numbers])
    with pytest.raises(RerankBatchError, match="a block holds"):
        _commit_block(block, writer=run.writer(), keep=False)
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


def test_an_error_of_ours_comes_out_of_ray_as_it_was_raised():
    """Ray's error of a task is of our class as well, with a worker's whole stack for a message."""
    raised = StorageError("the bucket does not exist")
    task = RayTaskError("task", "a stack\nof many\nlines", raised).as_instanceof_cause()
    assert isinstance(task, StorageError)
    with pytest.raises(StorageError) as error, _clear_errors():
        raise task
    assert error.value is raised
