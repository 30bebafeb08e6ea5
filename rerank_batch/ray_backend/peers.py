"""Ray Data's own ways to do the work of a job, for benchmarks to compare with."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from rerank_batch.ray_backend.datasources import read_blocks
from rerank_batch.ray_backend.errors import clear_errors
from rerank_batch.ray_backend.execution import map_blocks
from rerank_batch.runs import BlockWriter
from rerank_batch.runs.commit import BlockDone, commit_block
from rerank_batch.storage import filesystem_of


def write_tables(files: Sequence[str], target: str) -> None:
    """Arrow files, each a block, by Ray Data's own Parquet writer: the peer of the protocol."""
    filesystem, paths = filesystem_of([target])
    with clear_errors():
        read_blocks([partial(_read_arrow_file, file) for file in files]).write_parquet(
            paths[0], filesystem=filesystem
        )


def commit_tables(files: Sequence[str], writer: BlockWriter) -> Iterator[BlockDone]:
    """The same Arrow files, committed like the output of the last stage."""
    with clear_errors():
        dataset = read_blocks([partial(_read_arrow_file, file) for file in files])
        for row in map_blocks(dataset, partial(commit_block, writer=writer, keep=False)):
            yield BlockDone.of(row)


def map_naively(
    table: pa.Table, actor: type, arguments: dict[str, Any], batch_size: int, cpus: float
) -> pa.Table:
    """Batches of a table through one actor, by Ray Data's defaults: a peer of the pipeline."""
    with clear_errors():
        dataset = ray.data.from_arrow(table).map_batches(
            actor,
            fn_constructor_kwargs=arguments,
            compute=ActorPoolStrategy(size=1),
            batch_size=batch_size,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        )
        return pa.concat_tables(ray.get(dataset.to_arrow_refs()))


def _read_arrow_file(path: str) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(path)).read_all()
