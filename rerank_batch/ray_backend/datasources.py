"""Ray Datasets with one read task for each block; the worker that reads a block opens it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import Dataset, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata

from rerank_batch.config import ComputeConfig
from rerank_batch.pipeline.pools import LIGHT_CPUS, tasks_at_once
from rerank_batch.ray_backend.carried import carrying
from rerank_batch.ray_backend.start import (
    address_of,
    check_ray,
)
from rerank_batch.storage import open_file


def read_parquet(uris: Sequence[str]) -> Dataset:
    """Parquet files of a root as a Ray Dataset, a block each.

    Each is opened by the worker that reads it: no file system travels, and no credentials with it.
    """
    if not ray.is_initialized():  # readers of results leave that to Ray, as with its own data
        if address_of(compute := ComputeConfig()) is not None:
            check_ray(compute, logging.getLogger(__name__).warning)
        ray.init()
    return read_blocks([partial(_read_parquet_file, uri) for uri in uris])


def as_dataset(table: pa.Table) -> Dataset:
    """A table as a Ray Dataset."""
    return ray.data.from_arrow(table)


def read_blocks(reads: Sequence[Callable[[], pa.Table]]) -> Dataset:
    """Each table as a block of a Ray Dataset, made by a task of its own."""
    return ray.data.read_datasource(
        _Blocks(reads), num_cpus=LIGHT_CPUS, compute=small_tasks(), override_num_blocks=len(reads)
    )


def small_tasks() -> TaskPoolStrategy:
    """How many light tasks work at once, such as reads and commits."""
    return TaskPoolStrategy(size=tasks_at_once(ray.cluster_resources().get("CPU", 1)))


class _Blocks(Datasource):
    """One read task for each block, so that blocks are what the plan says they are."""

    def __init__(self, reads: Sequence[Callable[[], pa.Table]]) -> None:
        super().__init__()
        self._reads = reads

    def get_name(self) -> str:
        return "Blocks"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_read_block, read), unknown) for read in self._reads]


def _read_block(read: Callable[[], pa.Table]) -> Iterator[pa.Table]:
    with carrying():
        yield read()


def _read_parquet_file(uri: str) -> pa.Table:
    with open_file(uri) as source:
        return pq.read_table(source)
