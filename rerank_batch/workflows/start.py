"""How a run is begun, owned and gone on with: the part that every kind of run has in common."""

import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from rerank_batch.config import Config, digest
from rerank_batch.errors import ModelError, RerankBatchError, RunConflict
from rerank_batch.reporter import Reporter
from rerank_batch.runs import (
    ABORTED,
    COMPLETE,
    Lease,
    Run,
    RunSpec,
    block_bounds,
    is_begun,
    refuse_if_taken_over,
)
from rerank_batch.storage import Root
from rerank_batch.workflows.inputs import versions


@dataclass(frozen=True)
class Start:
    """How a run is begun: under which id, or going on with which one that died.

    With ``or_resume`` the same command does either: it begins ``run_id``, or goes on with it.
    """

    run_id: str | None = None
    resume: str | None = None
    take_over: bool = False
    or_resume: bool = False

    def to_resume(self, root: Root) -> str | None:
        """The run to go on with; None where a new one is to begin."""
        if self.or_resume and self.run_id is not None and is_begun(root, self.run_id):
            return self.run_id
        return self.resume

    def begun(self, root: Root) -> Run | None:
        """The run to go on with, opened; None where there is none yet."""
        resume = self.to_resume(root)
        if resume is None or not is_begun(root, resume):
            return None
        return Run.open(root, resume)


@dataclass(frozen=True)
class NewRun:
    """What spec.json of a new run holds beside what every run has."""

    job: str
    made_of: Mapping[str, Any]
    planned: int
    block_rows: int
    more: Mapping[str, Any]


def begin(root: Root, config: Config, start: Start, new: NewRun) -> Run:
    """Begin a run, or open the one to go on with, which must be made of the same.

    Raises:
        InputsChanged: it is made of something else.
        RunConflict: it was aborted, or the id is taken.
    """
    if (resume := start.to_resume(root)) is not None:
        run = Run.open(root, resume)
        run.check_made_of(new.made_of)
        if run.state() == ABORTED:
            raise RunConflict(f"run {run.run_id} was aborted; begin a new one")
        return run
    spec = RunSpec(
        job=new.job,
        created=datetime.now(UTC).isoformat(),
        fingerprint=digest(new.made_of),
        made_of=new.made_of,
        **new.more,
        config=config.model_dump(mode="json"),
        versions=versions(),
        planned=new.planned,
        block_rows=new.block_rows,
        blocks=len(block_bounds(new.planned, new.block_rows)),
    )
    return Run.create(root, start.run_id or new_run_id(new.job), spec)


def new_run_id(job: str) -> str:
    """A run id that sorts by time: job, UTC time, four random characters."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{job[:40]}-{stamp}-{secrets.token_hex(2)}"


def is_complete(run: Run | None) -> bool:
    """Whether there is a run, and nothing of it is left to do."""
    return run is not None and run.state() == COMPLETE


@contextmanager
def driving(
    run: Run, config: Config, reporter: Reporter, take_over: bool = False
) -> Iterator[Lease]:
    """Own a run while its driver works on it.

    Whatever stops the driver, its user learns how to go on; a run whose model cannot be used, and
    that holds nothing, is forgotten.

    Raises:
        RunConflict: another driver owns it, or took it over.
    """
    lease_seconds = config.storage.lease_seconds
    run.claim(take_over, lease_seconds, reporter.note)
    with (
        _forgotten_if_unusable(run),
        owned(run, lease_seconds) as lease,
        _with_advice(run, lease, reporter),
    ):
        yield lease


@contextmanager
def owned(run: Run, lease_seconds: float) -> Iterator[Lease]:
    """Hold the run's lease; whoever loses it to another driver is stopped wherever it waits.

    The library takes no signal handler: it sends the main thread a signal that already means
    KeyboardInterrupt there (the command line gives SIGUSR1 that meaning). Where there is none, and
    in other threads, the loss is noticed after the next block.

    Raises:
        RunConflict: the run was taken over.
    """
    main = threading.main_thread()
    interrupt = _interrupting_signal() if threading.current_thread() is main else None

    def stop() -> None:
        if interrupt is not None:
            signal.pthread_kill(cast("int", main.ident), interrupt)

    try:
        with run.lease(lease_seconds, on_lost=stop) as lease:
            yield lease
    except KeyboardInterrupt:
        if lease.lost:
            refuse_if_taken_over(run.root, run.run_id, run.epoch)
        raise


def _interrupting_signal() -> signal.Signals | None:
    """A signal that raises KeyboardInterrupt in the main thread; None where none does."""
    for number in (signal.SIGUSR1, signal.SIGINT):
        if signal.getsignal(number) is signal.default_int_handler:
            return number
    return None


@contextmanager
def _forgotten_if_unusable(run: Run) -> Iterator[None]:
    """Where a model cannot be used, nothing is left to resume: with another model or setting it is
    another run. What is done or paid for is kept."""
    try:
        yield
    except ModelError:
        run.forget()
        raise


@contextmanager
def _with_advice(run: Run, lease: Lease, reporter: Reporter) -> Iterator[None]:
    """Whatever stops a run that is begun, its user learns that nothing done is lost."""
    try:
        yield
    except (RerankBatchError, KeyboardInterrupt) as error:
        unusable = isinstance(error, ModelError) and run.holds_nothing()
        if not (lease.lost or unusable or isinstance(error, RunConflict)):
            reporter.note(f"what is done is kept; go on with: --resume {run.run_id}")
        raise
