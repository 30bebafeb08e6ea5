"""The boundary to Ray: stage specs become one Ray Data execution. Nothing else imports ray.

A plan file is one block, and a block passes every stage whole: it is read by one read task, handed
to each stage in one call and committed by one write. Which queries are scored together therefore
never depends on how many actors there are, in which order they work, or on a resume.
"""

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset, Datasink, Datasource, ReadTask
from ray.data.block import BlockMetadata

from rerank_batch import errors, schema
from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.pools import LIGHT_CPUS
from rerank_batch.run import BlockWriter
from rerank_batch.stages import StageSpec, write_vectors

_TIMER = f"{schema.SECONDS}."
_RETRIES = 3


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give."""

    cpus: float
    gpus: float


@contextmanager
def cluster(compute: ComputeConfig, verbose: bool = False) -> Iterator[Cluster]:
    """Connect to the cluster that the configuration or RAY_ADDRESS names, or start one here.

    A cluster started here is stopped on the way out.

    Raises:
        ComputeError: the cluster cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = compute.address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": verbose,
        "logging_level": "INFO" if verbose else "ERROR",
        # The scorer's own threads are the parallelism; tokenizer threads on top would fight them.
        "runtime_env": {"env_vars": {"TOKENIZERS_PARALLELISM": "0"}},
    }
    if address is None:
        settings["include_dashboard"] = False
        settings["object_store_memory"] = compute.object_store_mb << 20
        if compute.cpus != "auto":
            settings["num_cpus"] = compute.cpus
        if compute.gpus != "auto":
            settings["num_gpus"] = compute.gpus
    try:
        with _without_stderr(not verbose):
            ray.init(**settings)
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        raise ComputeError(f"Ray did not start at {address or 'this machine'}: {error}") from error
    _configure_data(verbose)
    try:
        resources = ray.cluster_resources()
        yield Cluster(cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0))
    finally:
        ray.shutdown()


def run_queries(plan: Sequence[str], stages: Sequence[StageSpec], writer: BlockWriter) -> None:
    """Send planned queries through the stages and commit every block.

    ``plan`` are the paths of the blocks that are still to do.

    Raises:
        ComputeError: a stage failed more often than it is retried.
    """
    with _clear_errors():
        dataset = _read([_ReadPlan(path) for path in plan])
        for spec in stages:
            dataset = map_stage(dataset, spec)
        dataset.write_datasink(_CommitBlocks(writer), ray_remote_args={"num_cpus": LIGHT_CPUS})


def encode_documents(blocks: Sequence[tuple[int, int]], stage: StageSpec, folder: Path) -> None:
    """Encode document ranges and keep their vectors in ``folder``."""
    with _clear_errors():
        dataset = map_stage(_read([_Numbers(*block) for block in blocks]), stage)
        dataset.write_datasink(_KeepVectors(folder), ray_remote_args={"num_cpus": LIGHT_CPUS})


def build_shards(shards: Sequence[tuple[int, int]], stage: StageSpec) -> list[str]:
    """Build every shard and return the sha256 of each file, in shard order."""
    with _clear_errors():
        rows = [_ShardRow(number, *bounds) for number, bounds in enumerate(shards)]
        built = map_stage(_read(rows), stage).take_all()
    return [row["sha256"] for row in sorted(built, key=lambda row: int(row["shard"]))]


def map_stage(dataset: Dataset, spec: StageSpec) -> Dataset:
    """One stage as an actor pool: the only caller of map_batches."""
    pool = spec.pool
    # Ray 2.60 says that it will rename how max_restarts is given, and knows no other way yet.
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*is deprecated.*")
    constructor = {"spec": spec, "kwargs": {name: _share(v) for name, v in spec.kwargs.items()}}
    return dataset.map_batches(
        type(spec.name, (_Actor,), {}),
        fn_constructor_kwargs=constructor,
        compute=ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=2),
        batch_size=spec.batch_size if pool.num_gpus else None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus,
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )


class _Actor:
    """Runs a stage inside a Ray actor: checks the edges and times the work.

    The seconds travel beside the rows, an equal part on each, so that they are summed over
    committed blocks only.
    """

    def __init__(self, spec: StageSpec, kwargs: dict[str, Any]) -> None:
        given = {
            name: ray.get(value) if isinstance(value, ray.ObjectRef) else value
            for name, value in kwargs.items()
        }
        self._name = spec.name
        self._output = spec.output
        self._stage = spec.stage(**given, threads=spec.pool.threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        began = time.perf_counter()
        timers = [name for name in table.column_names if name.startswith(_TIMER)]
        output = self._stage(table.drop_columns(timers))
        if output.num_rows != table.num_rows:
            raise RerankBatchError(
                f"stage {self._name} made {output.num_rows} rows of {table.num_rows}"
            )
        output = schema.check(output, self._output, f"stage {self._name}")
        for name in timers:
            output = output.append_column(name, table.column(name))
        each = (time.perf_counter() - began) / max(1, table.num_rows)
        return output.append_column(
            f"{_TIMER}{self._name}", pa.array([each] * output.num_rows, pa.float64())
        )


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
        return [ReadTask(read, unknown) for read in self._reads]


@dataclass(frozen=True)
class _ReadPlan:
    path: str

    def __call__(self) -> Iterable[pa.Table]:
        yield pq.read_table(self.path, schema=schema.PLAN)


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


class _CommitBlocks(Datasink[None]):
    """Writes and commits each block; may run more than once for a block, which counts once."""

    def __init__(self, writer: BlockWriter) -> None:
        self._writer = writer

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        for block in blocks:
            if block.num_rows:
                self._commit(block.sort_by(schema.QIDX))

    def _commit(self, block: pa.Table) -> None:
        timers = [name for name in block.column_names if name.startswith(_TIMER)]
        seconds = {
            name.removeprefix(_TIMER): float(pc.sum(block.column(name)).as_py()) for name in timers
        }
        good = block.filter(pc.is_null(block.column(schema.REJECT)))
        bad = block.filter(pc.is_valid(block.column(schema.REJECT)))
        rejects = pa.table(
            [
                bad.column("query_id"),
                bad.column(schema.REJECT),
                pc.list_value_length(bad.column("query_ids")).cast(pa.int64()),
            ],
            schema=schema.REJECTS,
        )
        self._writer.write(
            block.column(schema.QIDX).to_pylist(),
            good.drop_columns([*timers, schema.REJECT]),
            rejects,
            sums_of(block),
            seconds,
        )


class _KeepVectors(Datasink[None]):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        for block in blocks:
            if block.num_rows:
                write_vectors(self._folder, block)


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
    for row in block.column("metrics").to_pylist():
        for system, values in (row or {}).items():
            for name, value in values.items():
                key = f"{system}/{name}"
                sums[key] = sums.get(key, 0.0) + value
    return sums


def _read(reads: Sequence[Callable[[], Iterable[pa.Table]]]) -> Dataset:
    return ray.data.read_datasource(
        _Blocks(reads), num_cpus=LIGHT_CPUS, override_num_blocks=len(reads)
    )


def _share(value: Any) -> Any:
    """Large read-only values go to the object store once instead of into every actor's task."""
    return ray.put(value) if isinstance(value, dict) and len(value) > 1000 else value


@contextmanager
def _without_stderr(active: bool) -> Iterator[None]:
    """Ray's C++ core announces its log level on file descriptor 2; its errors are exceptions."""
    if not active:
        yield
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _configure_data(verbose: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    context.execution_options.preserve_order = False
    # A node may die while an actor loads its model; the default is to give up at once.
    context.max_consecutive_actor_init_deaths = _RETRIES - 1
    if not verbose:
        context.issue_detectors_config.detectors = []
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _our_error(error: BaseException) -> RerankBatchError | None:
    """The failure of ours behind an error of Ray's, if there is one.

    A failed call carries it as its cause; an actor that died while it was constructed carries only
    the text of its traceback.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RerankBatchError):
            return cause
        inner = getattr(cause, "cause", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    raised = re.findall(
        r"^(?:ray\.\S+: )?rerank_batch\.errors\.(\w+): (.+)$", str(error), re.MULTILINE
    )
    for name, message in reversed(raised):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, RerankBatchError):
            return kind(message)
    return None


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Our own errors come out of Ray as they were raised; Ray's become `ComputeError`."""
    try:
        yield
    except (ray.exceptions.RayError, ray.exceptions.UserCodeException, RuntimeError) as error:
        if ours := _our_error(error):
            raise ours from error
        raise ComputeError(
            f"a stage failed {_RETRIES} times: {str(error).strip().splitlines()[-1]}. "
            "Run again with -v for the workers' logs"
        ) from error
