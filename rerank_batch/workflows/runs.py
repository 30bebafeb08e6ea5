"""Look at runs and look after them: list, describe, export, verify, publish, abort, clean up."""

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rerank_batch import runs
from rerank_batch.errors import ConfigError, RunConflict, RunDamaged
from rerank_batch.reporter import Reporter
from rerank_batch.runs import COMPLETE, Garbage, Owner, Run, Verification, guards, is_latest
from rerank_batch.runs.decisions import (
    Override,
    Verdict,
    is_held_back,
    override,
    read_override,
    read_verdict,
)
from rerank_batch.runs.export import rankings, serving
from rerank_batch.runs.spec import RunSpec
from rerank_batch.runs.summary import Publication
from rerank_batch.storage import open_root

UNFINISHED = "unfinished"
OTHER_VERSION = "of another version"

_NAMED_FAULTS = 20


@dataclass(frozen=True)
class ListedRun:
    """A run in the list of a root; of one of another version only its name is known."""

    run_id: str
    job: str = ""
    created: str = ""
    state: str = OTHER_VERSION
    queries: int = 0
    latest: bool = False
    held_back: bool = False


def list_runs(root_uri: str) -> list[ListedRun]:
    """Every run under a root, oldest first, and which one is its job's latest."""
    root = open_root(root_uri)
    listed = []
    for run_id in runs.list_runs(root):
        try:
            run = Run.open(root, run_id)
        except RunConflict:
            listed.append(ListedRun(run_id))
            continue
        listed.append(
            ListedRun(
                run_id,
                run.spec.job,
                run.spec.created,
                _state(run.final()),
                run.spec.planned,
                is_latest(run),
                is_held_back(run),
            )
        )
    return listed


@dataclass(frozen=True)
class RunDescription:
    """What a run is made of and what came out.

    ``driver`` and ``how_to_go_on`` are of an unfinished run, ``files`` of a complete one.
    """

    run_id: str
    spec: RunSpec
    final: dict[str, Any] | None
    state: str
    verdict: Verdict | None
    override: Override | None
    driver: Owner | None
    how_to_go_on: str | None
    files: Sequence[str]


def describe_run(root_uri: str, run_id: str) -> RunDescription:
    """Read what a run keeps of itself."""
    run = Run.open(open_root(root_uri), run_id)
    final = run.final()
    state = _state(final)
    return RunDescription(
        run_id,
        run.spec,
        final,
        state,
        read_verdict(run),
        read_override(run),
        run.last_owner(),
        run.how_to_go_on() if final is None else None,
        run.results_paths() if state == COMPLETE else (),
    )


def _state(final: Mapping[str, Any] | None) -> str:
    return final["state"] if final else UNFINISHED


@dataclass(frozen=True)
class ExportedRun:
    """The file that a run's rankings were written to; ``served`` is there for serving formats."""

    run_id: str
    format: str
    system: str
    out: str
    rows: int
    served: serving.Exported | None = None


def export_run(
    root_uri: str,
    run_id: str,
    format: rankings.Format | serving.ServingFormat,
    system: str,
    out: Path,
) -> ExportedRun:
    """Write a run's rankings to a file.

    Raises:
        ConfigError: only reranked lists are served.
    """
    run = Run.open(open_root(root_uri), run_id)
    if format == "trec" or format == "jsonl" or format == "pairs":
        rows = rankings.export_run(run, format, system, out)
        return ExportedRun(run_id, format, system, str(out), rows)
    if system != "reranked":
        raise ConfigError(f"--format {format} serves reranked lists, not --system {system}")
    served = serving.export_serving(run, format, out)
    return ExportedRun(run_id, format, system, str(out), served.rows, served)


@dataclass(frozen=True)
class VerifiedRun:
    """What was read of a run again, and how many queries it planned."""

    verification: Verification
    planned: int

    def raise_if_damaged(self) -> None:
        """End the command of a run that is not as its final.json has it.

        Raises:
            RunDamaged: what is not; the first twenty faults.
        """
        faults = self.verification.faults
        if not faults:
            return
        listed = "\n".join(f"  - {fault}" for fault in faults[:_NAMED_FAULTS])
        more = len(faults) - _NAMED_FAULTS
        rest = f"\n  … and {more} more" if more > 0 else ""
        raise RunDamaged(
            f"run {self.verification.run_id} is damaged:\n{listed}{rest}\n"
            "Bring its files back from a copy, or make it again under another --run-id"
        )


def verify_run(root_uri: str, run_id: str, reporter: Reporter) -> VerifiedRun:
    """Read a finished run again and find everything that is not as its final.json has it."""
    run = Run.open(open_root(root_uri), run_id)
    final = run.finished()
    files = len(final["results"]) + len(final["reject_files"])
    read = 0

    def progress(done: int) -> None:
        nonlocal read
        read = done

    with reporter.progress("files", files, lambda: read):
        return VerifiedRun(runs.verify_run(run, progress), run.spec.planned)


@dataclass(frozen=True)
class PublishedRun:
    """What came of publishing a run.

    ``newer`` says that the latest run of the job is a newer one; ``override`` who published this
    one although it failed a guard.
    """

    root: str
    run_id: str
    job: str
    publication: Publication
    newer: bool
    override: Override | None


def publish_run(root_uri: str, run_id: str, force: bool) -> PublishedRun:
    """Make a complete run the latest of its job; one that failed a guard only with ``force``.

    Raises:
        RunConflict: it is not complete.
    """
    run = Run.open(open_root(root_uri), run_id)
    run.finished()
    verdict = guards.decide(run)
    if force and verdict is not None and not verdict.passed:
        override(
            run, f"{_user()} at {run.owner.host}", datetime.now(UTC).isoformat(timespec="seconds")
        )
    publication = guards.publish_unless_held_back(run)
    newer, by = not is_latest(run), read_override(run)
    return PublishedRun(root_uri, run_id, run.spec.job, publication, newer, by)


def _user() -> str:
    """The user's name, or the number where a container has no names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def abort_run(root_uri: str, run_id: str) -> str:
    """Give an unfinished run up for good; a driver that still works on it stops.

    Returns its state.
    """
    run = Run.open(open_root(root_uri), run_id)
    run.abort()
    return run.state()


def collect_garbage(
    root_uri: str, job: str | None, keep: int | None, delete: bool
) -> list[Garbage]:
    """Find what no reader will ask for, and remove it with ``delete``."""
    root = open_root(root_uri)
    garbage = runs.find_garbage(root, job, keep)
    if delete:
        runs.remove_garbage(root, garbage)
    return garbage
