"""The boundary to Ray: stage specs become one Ray Data execution. Nothing else imports ray.

A plan file is one block, and a block passes every stage whole: it is read by one read task, handed
to each stage in one call and committed by one write. Which queries are scored together therefore
never depends on how many actors there are, in which order they work, or on a resume.
"""

import json
import logging
import math
import os
import pickle
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray._private.ray_logging import stdout_deduplicator
from ray.data import ActorPoolStrategy, Dataset, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rerank_batch import schema
from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.pipeline.actors import by_actor, use_threads
from rerank_batch.pipeline.isolation import run_isolated
from rerank_batch.pipeline.pools import LIGHT_CPUS, Pool, tasks_at_once
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stages import StageSpec, write_vectors
from rerank_batch.progress import pairs as progress
from rerank_batch.ray_backend.carried import carrying, unpacked
from rerank_batch.ray_backend.failures import why_it_failed
from rerank_batch.ray_backend.progress import forget_told, teller
from rerank_batch.ray_backend.start import (
    Say,
    address_of,
    check_ray,
    connected,
    started_here,
    without_stderr,
)
from rerank_batch.runs import BlockWriter, DataFile, read_block
from rerank_batch.storage import Root, endpoint_variables, filesystem_of, open_file
from rerank_batch.tally import CPU_SECONDS, add, drain

T = TypeVar("T")

_RETRIES = 3
_NAMED = 5


def lost_since(before: Cluster) -> str:
    """What the cluster has lost since then, with nodes that died; empty where nothing is.

    The pools are sized once: an actor whose node is not replaced waits for room.
    """
    now = ray.cluster_resources()
    gone = [
        f"{had - now.get(kind, 0):g} of {had:g} {kind}s"
        for kind, had in (("CPU", before.cpus), ("GPU", before.gpus))
        if now.get(kind, 0) < had
    ]
    return f"waiting for {' and '.join(gone)} that the cluster has lost" if gone else ""


@contextmanager
def cluster(
    compute: ComputeConfig, verbose: bool = False, say: Say = lambda text: None
) -> Iterator[Cluster]:
    """Connect to the cluster that the configuration or RAY_ADDRESS names, or start one here.

    A cluster started here is stopped on the way out. ``say`` gets a line where it takes long.

    Raises:
        ComputeError: the cluster cannot be reached or started.
        StorageError: there is no room for the files of one started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    seconds = check_ray(compute, say)
    address = address_of(compute)
    settings: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": verbose,
        "logging_level": "INFO" if verbose else "ERROR",
        # The scorer's own threads are the parallelism; tokenizer threads on top would fight them.
        "runtime_env": {"env_vars": {"TOKENIZERS_PARALLELISM": "0", **endpoint_variables()}},
    }
    if address is None:
        settings["include_dashboard"] = False
        settings["object_store_memory"] = compute.object_store_mb << 20
        if compute.cpus != "auto":
            settings["num_cpus"] = compute.cpus
        if compute.gpus != "auto":
            settings["num_gpus"] = compute.gpus
    start = partial(ray.init, **settings)
    try:
        with without_stderr(not verbose) as aloud, _own_signals():
            if address is None:
                context = started_here(start, aloud(say))
            else:
                context = connected(start, address, seconds, aloud(say))
    except RerankBatchError:
        raise
    except Exception as error:  # of a node that starts too slowly Ray says no more than that
        raise ComputeError(
            f"Ray did not start at {address or 'this machine'}: {str(error).rstrip('. ')}. "
            "Run again with -v for its logs"
        ) from error
    _configure_data(verbose)
    try:
        resources = ray.cluster_resources()
        memory = [node["Resources"].get("memory", math.inf) for node in _working_nodes()]
        yield Cluster(
            cpus=resources.get("CPU", 0),
            gpus=resources.get("GPU", 0),
            nodes=max(1, len(memory)),
            memory=min(memory, default=math.inf),
            dashboard=_job_page(context.dashboard_url),
        )
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class BlockDone:
    """A block that is committed: how many queries it holds, and the log rows it rejected.

    Also its first query, the sums of its commit, and the rejected rows by reason.
    """

    queries: int
    rejected_rows: int
    start: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    reject_reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "BlockDone":
        """What `_commit_block` says of it."""
        sums, reasons = json.loads(row["sums"]), json.loads(row["reject_reasons"])
        return cls(row["queries"], row["rejected_rows"], row["start"], sums, reasons)


Sums = Callable[[pa.Table], dict[str, float]]
"""What is summed over a block for its commit; gets the block as the last stage left it."""


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
    commit = partial(_commit_block, writer=writer, keep=keep_texts, sums=sums)
    with _clear_errors():
        dataset = _read([_ReadPlan(writer.root, writer.run_id, block, plan) for block in blocks])
        for specs in by_actor(stages):
            dataset = map_stages(dataset, specs)
        try:
            for row in _map_blocks(dataset, commit):
                yield BlockDone.of(row)
        finally:
            forget_told()


def encode_documents(
    blocks: Sequence[tuple[int, int]], stage: StageSpec, root: Root, build: str
) -> Iterator[int]:
    """Encode document ranges and keep their vectors with the build; yields documents done."""
    with _clear_errors():
        dataset = map_stages(_read([_Numbers(*block) for block in blocks]), [stage])
        for row in _map_blocks(dataset, partial(_keep_vectors, root=root, build=build)):
            yield row["documents"]


def build_shards(shards: Sequence[tuple[int, int]], stage: StageSpec) -> list[dict[str, Any]]:
    """Build every shard; ``key``, ``bytes`` and ``sha256`` of each file, in shard order."""
    with _clear_errors():
        rows = [_ShardRow(number, *bounds) for number, bounds in enumerate(shards)]
        built = map_stages(_read(rows), [stage]).take_all()
    return sorted(built, key=lambda row: int(row["shard"]))


def write_tables(files: Sequence[str], target: str) -> None:
    """Arrow files, each a block, by Ray Data's own Parquet writer: the peer of the protocol."""
    filesystem, paths = filesystem_of([target])
    with _clear_errors():
        _read([_ReadTable(file) for file in files]).write_parquet(paths[0], filesystem=filesystem)


def commit_tables(files: Sequence[str], writer: BlockWriter) -> Iterator[BlockDone]:
    """The same Arrow files, committed like the output of the last stage."""
    with _clear_errors():
        dataset = _read([_ReadTable(file) for file in files])
        for row in _map_blocks(dataset, partial(_commit_block, writer=writer, keep=False)):
            yield BlockDone.of(row)


def on_worker(function: Callable[..., T], pool: Pool, *arguments: Any) -> T:
    """Call a function where an actor of the pool would run, and wait for what it returns."""
    with _clear_errors():
        task = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, name=_name(function))
        result: T = ray.get(task(_call).remote(function, *arguments))
        return result


def on_every_node(function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call a function on each node that actors may run on."""
    with _clear_errors():
        here = ray.remote(num_cpus=LIGHT_CPUS, name=_name(function))(_call)
        tasks = [
            here.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote(function, *arguments)
            for node in _working_nodes()
        ]
        results: list[T] = ray.get(tasks)
        return results


def _call(function: Callable[..., T], *arguments: Any) -> T:
    """What Ray takes as a task is a plain function; methods and partials travel as its argument."""
    with carrying():
        return function(*arguments)


def _name(function: Callable[..., Any]) -> str:
    """What Ray's dashboard shows such a task as."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


def _working_nodes() -> list[dict[str, Any]]:
    """The nodes that have CPUs to give; a head is often there for the rest alone."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def map_files(
    uris: Sequence[str], function: Callable[..., T], *shared: Any
) -> Generator[tuple[int, T]]:
    """Call ``function(uri, *shared)`` for every file, each on a CPU of its own.

    Yields the number of a file and what came back, as they are done. What is ``shared`` is kept
    once per node.
    """
    with _clear_errors():
        kept = tuple(ray.put(value) for value in shared)
        done = _read([_FileRow(number, uri) for number, uri in enumerate(uris)]).map_batches(
            partial(_call_for_file, function=function, shared=kept),
            compute=TaskPoolStrategy(size=max(1, int(ray.cluster_resources().get("CPU", 1)))),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield row["file"], pickle.loads(row["result"])


def map_naively(
    table: pa.Table, actor: type, arguments: dict[str, Any], batch_size: int, cpus: float
) -> pa.Table:
    """Batches of a table through one actor, by Ray Data's defaults: a peer of the pipeline."""
    with _clear_errors():
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


def read_parquet(uris: Sequence[str]) -> Dataset:
    """Parquet files of a root as a Ray Dataset, a block each.

    Each is opened by the worker that reads it: no file system travels, and no credentials with it.
    """
    if not ray.is_initialized():  # readers of results leave that to Ray, as with its own data
        if address_of(compute := ComputeConfig()) is not None:
            check_ray(compute, logging.getLogger(__name__).warning)
        ray.init()
    return _read([_ReadFile(uri) for uri in uris])


def as_dataset(table: pa.Table) -> Dataset:
    """A table as a Ray Dataset."""
    return ray.data.from_arrow(table)


def map_stages(dataset: Dataset, specs: Sequence[StageSpec]) -> Dataset:
    """Stages that share an actor pool, or one with its own: the only caller of map_batches with
    actors."""
    first = specs[0]
    pool = first.pool
    # Ray 2.60 says that it will rename how max_restarts is given, and knows no other way yet.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*is deprecated.*")
    kwargs = [{name: _share(v) for name, v in spec.kwargs.items()} for spec in specs]
    return dataset.map_batches(
        type(first.actor or first.name, (_Actor,), {}),
        fn_constructor_kwargs={"specs": tuple(specs), "kwargs": kwargs},
        compute=ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=2),
        batch_size=first.batch_size if pool.num_gpus else None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
        # What kills its actor again and again ends with the restarts. Retries are not counted: all
        # of them fail at once while a node is dead and Ray does not know it yet, some 15 s.
        max_restarts=_RETRIES,
        max_task_retries=-1,
    )


def _map_blocks(dataset: Dataset, function: Callable[[pa.Table], pa.Table]) -> Iterator[Any]:
    """Hand each block to a task, once or more, and yield the rows of what it returns."""
    done = dataset.map_batches(
        partial(_call, function),
        compute=_tasks(),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=LIGHT_CPUS,
    )
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


class _Actor:
    """Runs stages inside a Ray actor, each on what the one before it made.

    An error of ours while it is made is kept for its first call: Ray would make the actor again and
    again, and the error would be the same each time.
    """

    def __init__(self, specs: Sequence[StageSpec], kwargs: Sequence[dict[str, Any]]) -> None:
        self._stages: list[_Stage] = []
        self._error: RerankBatchError | None = None
        with carrying():
            try:
                self._stages = [_Stage(*each) for each in zip(specs, kwargs, strict=True)]
            except RerankBatchError as error:
                self._error = error

    def __call__(self, table: pa.Table) -> pa.Table:
        with carrying():
            if self._error is not None:
                raise self._error
            for stage in self._stages:
                use_threads(stage.threads)
                table = stage(table)
            return table


class _Stage:
    """A stage at work: checks the edges, times the work, isolates what fails.

    Seconds on the clock and of cores, and what was noted, travel beside the rows, on the first one,
    so that they are summed over committed blocks only.
    """

    def __init__(self, spec: StageSpec, kwargs: dict[str, Any]) -> None:
        given = {
            name: ray.get(value) if isinstance(value, ray.ObjectRef) else value
            for name, value in kwargs.items()
        }
        self.threads = spec.pool.threads
        self._name = spec.name
        self._output = spec.output
        self._stage = spec.stage(**given, threads=spec.pool.threads)
        self._deaths = _Deaths(spec.name)
        self._teller = teller(spec.name)

    def __call__(self, table: pa.Table) -> pa.Table:
        if schema.QIDX not in table.column_names or not table.num_rows:
            return self._work(table)
        with self._teller.call(table.column(schema.QIDX)[0].as_py(), table.num_rows):
            return self._work(table)

    def _work(self, table: pa.Table) -> pa.Table:
        began, cpu_before = time.perf_counter(), time.process_time()
        side: list[str | None] = [None] * table.num_rows
        if schema.SIDE in table.column_names:
            side = table.column(schema.SIDE).to_pylist()
            table = table.drop_columns([schema.SIDE])
        if schema.REJECT in self._output.names:
            with self._deaths.counted(table):
                output = run_isolated(self._attempt, table, self._name, self._output)
        else:
            output = schema.check(self._stage(table), self._output, f"stage {self._name}")
        if output.num_rows != table.num_rows:
            raise RerankBatchError(
                f"stage {self._name} made {output.num_rows} rows of {table.num_rows}"
            )
        if side:
            add(f"{CPU_SECONDS}.{self._name}", time.process_time() - cpu_before)
            note = {"seconds": {self._name: time.perf_counter() - began}, **asdict(drain())}
            side[0] = json.dumps([*json.loads(side[0] or "[]"), note])
        return output.append_column(schema.SIDE, pa.array(side, pa.string()))

    def _attempt(self, table: pa.Table) -> pa.Table:
        """The stage once, of a batch that may have been begun before."""
        progress.forget()
        result: pa.Table = self._stage(table)
        return result


class _Deaths:
    """How often a batch has ended the process that worked on it: killed, or out of memory.

    Kept with the cluster's head, because the process that could remember is the one that died.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage

    @contextmanager
    def counted(self, table: pa.Table) -> Iterator[None]:
        """Count a start, and forget it when the batch leaves the process alive."""
        if not internal_kv._internal_kv_initialized() or not table.num_rows:
            yield
            return
        job = ray.get_runtime_context().get_job_id()
        key = f"rerank_batch/{job}/{self._stage}/{table.column(schema.QIDX)[0]}".encode()
        starts = int(internal_kv._internal_kv_get(key) or 0)
        if starts >= _RETRIES:
            ids = table.column("query_id").to_pylist()
            raise ComputeError(
                f"stage {self._stage} died {starts} times on the same {len(ids)} queries "
                f"({', '.join(ids[:_NAMED])}{', …' if len(ids) > _NAMED else ''}). If memory ran "
                "out, make batches smaller: lower reranker.batch_tokens or compute.block_rows"
            )
        internal_kv._internal_kv_put(key, str(starts + 1).encode(), overwrite=True)
        try:
            yield
        finally:
            internal_kv._internal_kv_del(key)


class _Blocks(Datasource):
    """One read task for each block, so that blocks are what the plan says they are."""

    def __init__(self, reads: Sequence[Callable[[], Iterable[pa.Table]]]) -> None:
        super().__init__()
        self._reads = reads

    def get_name(self) -> str:
        return "Blocks"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_read_block, read), unknown) for read in self._reads]


def _read_block(read: Callable[[], Iterable[pa.Table]]) -> Iterator[pa.Table]:
    with carrying():
        yield from read()


@dataclass(frozen=True)
class _ReadPlan:
    root: Root
    run_id: str
    block: int
    schema: pa.Schema

    def __call__(self) -> Iterable[pa.Table]:
        yield read_block(self.root, self.run_id, self.block, self.schema)


@dataclass(frozen=True)
class _ReadFile:
    uri: str

    def __call__(self) -> Iterable[pa.Table]:
        with open_file(self.uri) as source:
            yield pq.read_table(source)


@dataclass(frozen=True)
class _FileRow:
    file: int
    uri: str

    def __call__(self) -> Iterable[pa.Table]:
        yield pa.table({"file": [self.file], "uri": [self.uri]})


@dataclass(frozen=True)
class _ReadTable:
    file: str

    def __call__(self) -> Iterable[pa.Table]:
        yield pa.ipc.open_file(pa.memory_map(self.file)).read_all()


@dataclass(frozen=True)
class _Numbers:
    start: int
    stop: int

    def __call__(self) -> Iterable[pa.Table]:
        yield pa.table({"document": pa.array(range(self.start, self.stop), pa.int64())})


@dataclass(frozen=True)
class _ShardRow:
    shard: int
    start: int
    stop: int

    def __call__(self) -> Iterable[pa.Table]:
        yield pa.table({"shard": [self.shard], "start": [self.start], "stop": [self.stop]})


def _commit_block(
    block: pa.Table, writer: BlockWriter, keep: bool, sums: Sums | None = None
) -> pa.Table:
    """Write and commit a block; may run more than once for a block, which counts once."""
    block = block.sort_by(schema.QIDX)
    qidx = block.column(schema.QIDX).to_numpy()
    start, stop = int(qidx[0]), int(qidx[-1]) + 1
    if not np.array_equal(qidx, np.arange(start, stop)):
        raise RerankBatchError(
            f"a block holds {len(np.unique(qidx))} of the queries {start} to {stop - 1}, "
            f"in {len(qidx)} rows"
        )
    texts = block.column(schema.SIDE).drop_null().to_pylist()
    notes = [note for text in texts for note in json.loads(text)]
    totals = {**(sums or sums_of)(block), **_total(notes, "sums")}
    scores = [DataFile(**file) for note in notes for file in note["scores"]]
    good = block.filter(pc.is_null(block.column(schema.REJECT)))
    bad = block.filter(pc.is_valid(block.column(schema.REJECT)))
    rejects = pa.table(
        [
            bad.column(schema.QIDX),
            bad.column("query_id"),
            bad.column(schema.REJECT),
            pc.list_value_length(bad.column("query_ids")).cast(pa.int64()),
            bad.column(schema.QUERY) if keep else pa.nulls(bad.num_rows, pa.string()),
        ],
        schema=schema.REJECTS,
    )
    results = good.drop_columns([schema.SIDE, schema.REJECT])
    seconds, counts = _total(notes, "seconds"), _total(notes, "counts")
    commit = writer.write(start, stop, results, rejects, totals, seconds, counts, scores)
    return pa.table(
        {
            "start": pa.array([start], pa.int64()),
            "queries": pa.array([stop - start], pa.int64()),
            "rejected_rows": pa.array([sum(commit.reject_reasons.values())], pa.int64()),
            "sums": pa.array([json.dumps(commit.sums)], pa.string()),
            "reject_reasons": pa.array([json.dumps(commit.reject_reasons)], pa.string()),
        }
    )


def _total(notes: Iterable[dict[str, Any]], what: str) -> dict[str, float]:
    """The sums of one mapping of the notes, name by name."""
    summed: dict[str, float] = {}
    for note in notes:
        for name, value in note[what].items():
            summed[name] = summed.get(name, 0.0) + value
    return summed


def _call_for_file(
    block: pa.Table, function: Callable[..., Any], shared: Sequence[ray.ObjectRef]
) -> pa.Table:
    given = ray.get(list(shared))
    uris = block.column("uri").to_pylist()
    results = [pickle.dumps(_call(function, uri, *given)) for uri in uris]
    return pa.table({"file": block.column("file"), "result": pa.array(results, pa.large_binary())})


def _keep_vectors(block: pa.Table, root: Root, build: str) -> pa.Table:
    write_vectors(root, build, block)
    return pa.table({"documents": pa.array([block.num_rows], pa.int64())})


def sums_of(block: pa.Table) -> dict[str, float]:
    """What a commit carries so that totals and means need no second pass over the rows.

    ``judged`` counts queries with judgements, rejected ones too: they score 0 in every mean.
    """
    written = block.filter(pc.is_null(block.column(schema.REJECT)))
    sums = {
        "queries": float(written.num_rows),
        "weight": float(pc.sum(written.column("weight")).as_py() or 0),
        "pairs": float(pc.sum(pc.list_value_length(written.column("candidates"))).as_py() or 0),
        "judged": float(block.num_rows - block.column("metrics").null_count),
    }
    for flags in written.column(schema.FLAGS).to_pylist():
        for flag in flags:
            sums[f"flag.{flag}"] = sums.get(f"flag.{flag}", 0.0) + 1
    for row in block.column("metrics").to_pylist():
        for system, values in (row or {}).items():
            for name, value in values.items():
                key = f"{system}/{name}"
                sums[key] = sums.get(key, 0.0) + value
    return sums


def _read(reads: Sequence[Callable[[], Iterable[pa.Table]]]) -> Dataset:
    return ray.data.read_datasource(
        _Blocks(reads), num_cpus=LIGHT_CPUS, compute=_tasks(), override_num_blocks=len(reads)
    )


def _tasks() -> TaskPoolStrategy:
    return TaskPoolStrategy(size=tasks_at_once(ray.cluster_resources().get("CPU", 1)))


def _share(value: Any) -> Any:
    """Large read-only values go to the object store once instead of into every actor's task."""
    return ray.put(value) if isinstance(value, dict) and len(value) > 1000 else value


def _job_page(dashboard: str | None) -> str | None:
    """Where the dashboard shows this job; None without one, as in an installation of Ray alone."""
    if not dashboard:
        return None
    return f"http://{dashboard}/#/jobs/{ray.get_runtime_context().get_job_id()}"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over to print a stack and exit; the caller's handler says how to go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _configure_data(verbose: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    context.execution_options.preserve_order = False
    # A block stays one block from read to commit, however large its rows are.
    context.target_max_block_size = None
    # A node may die while an actor loads its model; the default is to give up at once.
    context.max_consecutive_actor_init_deaths = _RETRIES - 1
    if not verbose:
        # Failed tries of tasks and ends of workers, with stacks: what they mean is in the error.
        stdout_deduplicator.skip_re = re.compile("")
        context.issue_detectors_config.detectors = []
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _our_error(error: BaseException) -> RerankBatchError | None:
    """The failure of ours behind an error of Ray's, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        # Ray's error of a task is an instance of its cause's class as well, with a whole traceback
        # for a message: only one that is not Ray's is ours.
        if isinstance(cause, RerankBatchError) and not isinstance(cause, ray.exceptions.RayError):
            return cause
        inner = getattr(cause, "cause", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return unpacked(str(error))


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Our own errors come out of Ray as they were raised; Ray's become `ComputeError`."""
    try:
        yield
    except (ray.exceptions.RayError, ray.exceptions.UserCodeException, RuntimeError) as error:
        if ours := _our_error(error):
            raise ours from error
        raise ComputeError(why_it_failed(error)) from error
