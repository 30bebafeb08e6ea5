"""Look at runs and look after them: list, show, export, verify, abort, collect garbage."""

import getpass
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch.errors import ConfigError, RunDamaged
from rerank_batch.runs import (
    Run,
    find_garbage,
    guards,
    is_latest,
    remove_garbage,
    verify_run,
)
from rerank_batch.runs.decisions import override, read_override
from rerank_batch.runs.export.rankings import Format, export_run
from rerank_batch.runs.export.serving import ServingFormat, export_serving
from rerank_batch.storage import open_root


def export(
    root_uri: str,
    run_id: str,
    format: Format | ServingFormat,
    system: str,
    out: Path,
    console: Console,
) -> None:
    """Write a run's rankings to a file.

    Raises:
        ConfigError: only reranked lists are served.
    """
    run = Run.open(open_root(root_uri), run_id)
    summary = {"run_id": run_id, "format": format, "system": system, "out": str(out)}
    if format == "trec" or format == "jsonl" or format == "pairs":
        rows = export_run(run, format, system, out)
        console.result({**summary, "rows": rows}, f"{rows:,} rows of {system} written to {out}")
        return
    if system != "reranked":
        raise ConfigError(f"--format {format} serves reranked lists, not --system {system}")
    done = export_serving(run, format, out)
    each = done.bytes / max(done.rows, 1)
    parts = [f"{done.rows:,} queries written to {out}: {done.bytes:,} bytes, {each:,.0f} each"]
    if done.merged:
        parts.append(f"{done.merged:,} had the key of a heavier one and are left out")
    if done.too_large:
        parts.append(f"{done.too_large:,} are LEFT OUT: too large for {format}")
    console.result({**summary, **asdict(done)}, "\n".join(parts))


def verify(root_uri: str, run_id: str, console: Console) -> None:
    """Read a finished run again and say everything that is not as its final.json has it.

    Raises:
        RunDamaged: something is not; the message names it.
    """
    run = Run.open(open_root(root_uri), run_id)
    final = run.finished()
    files = len(final["results"]) + len(final["reject_files"])
    read = 0

    def progress(done: int) -> None:
        nonlocal read
        read = done

    with console.progress("files", files, lambda: read):
        found = verify_run(run, progress)
    summary = {**asdict(found), "planned": run.spec.planned}
    if found.faults:
        console.result(summary)
        listed = "\n".join(f"  - {fault}" for fault in found.faults[:_NAMED_FAULTS])
        more = len(found.faults) - _NAMED_FAULTS
        rest = f"\n  … and {more} more" if more > 0 else ""
        raise RunDamaged(
            f"run {run_id} is damaged:\n{listed}{rest}\n"
            "Bring its files back from a copy, or make it again under another --run-id"
        )
    facts = {
        "files": f"{found.files:,} with {found.bytes:,} bytes: sha256 and rows as listed",
        "queries": f"{found.queries:,} written + {found.rejected:,} rejected = "
        f"{run.spec.planned:,} planned, each exactly once",
    }
    console.result(summary, facts_table(f"Run {run_id} is whole", facts))


def publish(root_uri: str, run_id: str, force: bool, console: Console) -> None:
    """Make a complete run the latest of its job; one that failed a guard only if told to.

    Raises:
        GuardsFailed: it failed a guard and ``force`` was not given.
        RunConflict: it is not complete.
    """
    run = Run.open(open_root(root_uri), run_id)
    run.finished()
    verdict = guards.decide(run)
    failing = verdict is not None and not verdict.passed
    if failing and force:
        override(
            run, f"{_user()} at {run.owner.host}", datetime.now(UTC).isoformat(timespec="seconds")
        )
    outcome = guards.publish_unless_held_back(run)
    summary = {"root": root_uri, "run_id": run_id, **asdict(outcome)}
    if not outcome.published:
        console.result(summary)
        guards.refuse_if_held_back(summary)
    newer = "" if is_latest(run) else f"; {outcome.latest} is newer and stays the latest"
    published = read_override(run)
    by = f", published by {published.who} whatever its guards found" if published else ""
    console.result(
        {**summary, "override": asdict(published) if published else None},
        f"run {run_id} is {'older' if newer else 'the latest'} of {run.spec.job}{by}{newer}",
    )


def _user() -> str:
    """The user's name, or the number where a container has no names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def abort(root_uri: str, run_id: str, console: Console) -> None:
    """Give an unfinished run up for good; a driver that still works on it stops."""
    run = Run.open(open_root(root_uri), run_id)
    run.abort()
    console.result(
        {"run_id": run_id, "state": run.state()},
        f"run {run_id} is aborted; free its space with: rerank-batch runs gc {root_uri} --delete",
    )


def collect_garbage(
    root_uri: str, job: str | None, keep: int | None, delete: bool, console: Console
) -> None:
    """Show what no reader will ask for, and remove it if told to."""
    root = open_root(root_uri)
    garbage = find_garbage(root, job, keep)
    if delete:
        remove_garbage(root, garbage)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "objects", "uploads", "MB", "why"):
        table.add_column(column)
    for each in garbage:
        megabytes = f"{each.bytes / 1e6:.1f}"
        table.add_row(each.run_id, str(len(each.keys)), str(len(each.uploads)), megabytes, each.why)
    total_bytes = sum(each.bytes for each in garbage)
    done = "removed" if delete else "to remove with --delete; nothing was removed"
    summary = {
        "root": root_uri,
        "deleted": delete,
        "bytes": total_bytes,
        "garbage": [asdict(each) for each in garbage],
    }
    end = f"{total_bytes / 1e6:.1f} MB {done}" if garbage else "nothing to remove"
    console.result(summary, *([table] if garbage else []), end)


_NAMED_FAULTS = 20
