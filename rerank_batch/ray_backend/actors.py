"""Stages at work inside a Ray actor."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray
from ray.experimental import internal_kv

from rerank_batch import schema
from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.pipeline.actors import use_threads
from rerank_batch.pipeline.isolation import run_isolated
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.progress import pairs as progress
from rerank_batch.ray_backend.carried import carrying
from rerank_batch.ray_backend.progress import progress_sender
from rerank_batch.tally import CPU_SECONDS, add, drain

RETRIES = 3
"""How often a process may die on the same batch, or while it loads its model."""

_NAMED = 5


class StageActor:
    """Runs stages inside a Ray actor, each on what the one before it made.

    An error of ours while it is made is kept for its first call: Ray would make the actor again and
    again, and the error would be the same each time.
    """

    def __init__(self, specs: Sequence[StageSpec], kwargs: Sequence[dict[str, Any]]) -> None:
        self._stages: list[_RunningStage] = []
        self._error: RerankBatchError | None = None
        with carrying():
            try:
                self._stages = [_RunningStage(*each) for each in zip(specs, kwargs, strict=True)]
            except RerankBatchError as error:
                self._error = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """The block as the last of the stages leaves it."""
        with carrying():
            if self._error is not None:
                raise self._error
            for stage in self._stages:
                use_threads(stage.threads)
                table = stage(table)
            return table


class _RunningStage:
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
        self._sender = progress_sender(spec.name)

    def __call__(self, table: pa.Table) -> pa.Table:
        if schema.QIDX not in table.column_names or not table.num_rows:
            return self._work(table)
        with self._sender.call(table.column(schema.QIDX)[0].as_py(), table.num_rows):
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
        if starts >= RETRIES:
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
