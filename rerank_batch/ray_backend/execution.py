"""Stage specs become one Ray Data execution.

A plan file is one block, and a block passes every stage whole: it is read by one read task, handed
to each stage in one call and committed by one write. Which queries are scored together therefore
never depends on how many actors there are, in which order they work, or on a resume.
"""

import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy

from rerank_batch import schema
from rerank_batch.pipeline.actors import by_actor
from rerank_batch.pipeline.index_stages import write_vectors
from rerank_batch.pipeline.pools import LIGHT_CPUS
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.actors import RETRIES, StageActor
from rerank_batch.ray_backend.carried import call_carrying
from rerank_batch.ray_backend.datasources import (
    read_blocks,
    small_tasks,
)
from rerank_batch.ray_backend.errors import clear_errors
from rerank_batch.ray_backend.progress import delete_messages
from rerank_batch.runs import BlockWriter, read_block
from rerank_batch.runs.commit import BlockDone, Sums, commit_block
from rerank_batch.storage import Root

T = TypeVar("T")


def run_queries(
    blocks: Sequence[int],
    stages: Sequence[StageSpec],
    writer: BlockWriter,
    keep_texts: bool,
    plan: pa.Schema = schema.PLAN,
    sums: Sums | None = None,
) -> Generator[BlockDone]:
    """Send blocks of the plan through the stages and commit each; yields as they are committed.

    Closing the iterator stops the execution. ``keep_texts``: rejects carry the query's text.
    ``plan`` and ``sums`` are those of result rows, unless other rows are made.

    Raises:
        ComputeError: a stage failed more often than it is retried.
    """
    commit = partial(commit_block, writer=writer, keep=keep_texts, sums=sums)
    with clear_errors():
        dataset = read_blocks(
            [partial(read_block, writer.root, writer.run_id, block, plan) for block in blocks]
        )
        for specs in by_actor(stages):
            dataset = map_stages(dataset, specs)
        try:
            for row in map_blocks(dataset, commit):
                yield BlockDone.of(row)
        finally:
            delete_messages()


def encode_documents(
    blocks: Sequence[tuple[int, int]], stage: StageSpec, root: Root, build: str
) -> Iterator[int]:
    """Encode document ranges and keep their vectors with the build; yields documents done."""
    with clear_errors():
        dataset = map_stages(
            read_blocks([partial(_document_numbers, *block) for block in blocks]), [stage]
        )
        for row in map_blocks(dataset, partial(_keep_vectors, root=root, build=build)):
            yield row["documents"]


def build_shards(shards: Sequence[tuple[int, int]], stage: StageSpec) -> list[dict[str, Any]]:
    """Build every shard; ``key``, ``bytes`` and ``sha256`` of each file, in shard order."""
    with clear_errors():
        rows = [
            partial(pa.table, {"shard": [number], "start": [start], "stop": [stop]})
            for number, (start, stop) in enumerate(shards)
        ]
        built = map_stages(read_blocks(rows), [stage]).take_all()
    return sorted(built, key=lambda row: int(row["shard"]))


def map_files(
    uris: Sequence[str], function: Callable[..., T], *shared: Any
) -> Generator[tuple[int, T]]:
    """Call ``function(uri, *shared)`` for every file, each on a CPU of its own.

    Yields the number of a file and what came back, as they are done. What is ``shared`` is kept
    once per node.
    """
    with clear_errors():
        rows = [partial(pa.table, {"file": [n], "uri": [uri]}) for n, uri in enumerate(uris)]
        kept = tuple(ray.put(value) for value in shared)
        done = read_blocks(rows).map_batches(
            partial(_call_for_file, function=function, shared=kept),
            compute=TaskPoolStrategy(size=max(1, int(ray.cluster_resources().get("CPU", 1)))),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield row["file"], pickle.loads(row["result"])


def map_stages(dataset: Dataset, specs: Sequence[StageSpec]) -> Dataset:
    """Stages that share an actor pool, or one with its own: the only caller of map_batches with
    actors."""
    first = specs[0]
    pool = first.pool
    # Ray 2.60 says that it will rename how max_restarts is given, and knows no other way yet.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*is deprecated.*")
    kwargs = [{name: _share(v) for name, v in spec.kwargs.items()} for spec in specs]
    return dataset.map_batches(
        type(first.actor or first.name, (StageActor,), {}),
        fn_constructor_kwargs={"specs": tuple(specs), "kwargs": kwargs},
        compute=ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=2),
        batch_size=first.batch_size if pool.num_gpus else None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
        # What kills its actor again and again ends with the restarts. Retries are not counted: all
        # of them fail at once while a node is dead and Ray does not know it yet, some 15 s.
        max_restarts=RETRIES,
        max_task_retries=-1,
    )


def map_blocks(dataset: Dataset, function: Callable[[pa.Table], pa.Table]) -> Iterator[Any]:
    """Hand each block to a task, once or more, and yield the rows of what it returns."""
    done = dataset.map_batches(
        partial(call_carrying, function),
        compute=small_tasks(),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=LIGHT_CPUS,
    )
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _call_for_file(
    block: pa.Table, function: Callable[..., Any], shared: Sequence[ray.ObjectRef]
) -> pa.Table:
    given = ray.get(list(shared))
    uris = block.column("uri").to_pylist()
    results = [pickle.dumps(call_carrying(function, uri, *given)) for uri in uris]
    return pa.table({"file": block.column("file"), "result": pa.array(results, pa.large_binary())})


def _document_numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"document": pa.array(range(start, stop), pa.int64())})


def _keep_vectors(block: pa.Table, root: Root, build: str) -> pa.Table:
    write_vectors(root, build, block)
    return pa.table({"documents": pa.array([block.num_rows], pa.int64())})


def _share(value: Any) -> Any:
    """Large read-only values go to the object store once instead of into every actor's task."""
    return ray.put(value) if isinstance(value, dict) and len(value) > 1000 else value
