"""The one driver loop: a cluster, the stages of a run, and every block that is left to do."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

from rerank_batch.config import ComputeConfig
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.cluster import cluster, lost_since
from rerank_batch.ray_backend.run_progress import RunProgress
from rerank_batch.reporter import Reporter
from rerank_batch.runs import Lease, Run, refuse_if_taken_over
from rerank_batch.runs.commit import BlockDone


class Task(Protocol):
    """What a kind of run does: rerank queries, or mine labels."""

    def prepare(self, resources: Cluster, to_do: Sequence[int]) -> Sequence[StageSpec]:
        """Decide on the stages, once the cluster is known."""

    def blocks(
        self, to_do: Sequence[int], stages: Sequence[StageSpec]
    ) -> Generator[BlockDone, None, None]:
        """Send the blocks through the stages; yields each one that is committed."""

    def committed(self, block: BlockDone) -> None:
        """Look at a committed block; raises where the run must stop."""


@dataclass(frozen=True)
class Execution:
    """What a driver did: blocks done before it, the moment it began, and seconds."""

    done_before: int
    began: float
    start_seconds: float
    execute_seconds: float
    dashboard: str | None


def execute(
    run: Run, lease: Lease, compute: ComputeConfig, task: Task, reporter: Reporter
) -> Execution:
    """Do every block of the run that is not done.

    ``began`` of the result is a `time.perf_counter` of before the cluster was started.

    Raises:
        RunConflict: another driver took the run over.
    """
    done = run.done()
    done_before = len(done)
    to_do = run.blocks_to_do(done)
    planned, resumed = run.spec.planned, run.epoch > 1
    before = f", {done_before:,} of them done before" if resumed else ""
    reporter.note(f"run {run.run_id}: {planned:,} queries in {len(run.blocks())} blocks{before}")
    began = perf_counter()
    start_seconds, dashboard = 0.0, None
    if to_do:
        with cluster(compute, reporter.verbose, reporter.note) as resources:
            start_seconds = perf_counter() - began
            if (dashboard := resources.dashboard) is not None:
                reporter.note(f"Ray dashboard: {dashboard}")
            stages = task.prepare(resources, to_do)
            progress = RunProgress(run, to_do, stages)
            blocks = task.blocks(to_do, stages)
            lost = partial(lost_since, resources)
            with reporter.run_progress(progress.look, lost), closing(blocks):
                for block in blocks:
                    progress.commit(block)
                    task.committed(block)
                    if lease.lost:
                        refuse_if_taken_over(run.root, run.run_id, run.epoch)
    seconds = perf_counter() - began - start_seconds
    return Execution(done_before, began, start_seconds, seconds, dashboard)
