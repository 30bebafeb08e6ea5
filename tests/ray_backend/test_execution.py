"""The boundary to Ray, seen through a recorder: the arguments of map_batches, without a cluster."""

import pyarrow as pa

from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.execution import map_stages


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
