"""Tables of the commands `runs …`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from rerank_batch.runs import COMPLETE, Garbage, guards
from rerank_batch.workflows.runs import (
    OTHER_VERSION,
    ExportedRun,
    ListedRun,
    PublishedRun,
    RunDescription,
    VerifiedRun,
)

from ..console import Console
from .facts import facts_table


def show_list(root: str, runs: Sequence[ListedRun], console: Console) -> None:
    """Print a line for each run."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "created", "state", "queries", ""):
        table.add_column(column)
    rows: list[dict[str, Any]] = []
    for run in runs:
        if run.state == OTHER_VERSION:
            table.add_row(run.run_id, "", "", run.state, "", "")
            rows.append({"run_id": run.run_id, "state": run.state})
            continue
        rows.append(asdict(run))
        mark = "latest" if run.latest else "held back" if run.held_back else ""
        table.add_row(run.run_id, run.job, run.created[:19], run.state, f"{run.queries:,}", mark)
    console.result({"root": root, "runs": rows}, table if rows else f"no runs under {root}")


def show_run(run: RunDescription, console: Console) -> None:
    """Print what the run is made of and what came out."""
    spec, final = run.spec, run.final
    facts: dict[str, object] = {
        "job": spec.job,
        "created": spec.created,
        "state": run.state,
        "fingerprint": spec.fingerprint,
        "planned": f"{spec.planned:,} queries in {spec.blocks} blocks",
    }
    if final is None:
        facts["driver"] = f"{run.driver}" if run.driver else "none yet"
        facts["go on"] = run.how_to_go_on
    elif run.state == COMPLETE:
        facts |= {
            "queries": f"{final['queries']:,}",
            "rejects": final["rejects"] or "none",
            "pairs": f"{final['pairs']:,}",
            "metrics": json.dumps(final["metrics"], indent=1) if final["metrics"] else "none",
            "files": "\n".join(run.files),
        }
        if run.verdict is not None:
            facts["guards"] = guards.guards_line(run.verdict.guards)
        if (by := run.override) is not None:
            facts["published"] = f"by {by.who} at {by.when}, whatever the guards"
    summary = {
        "spec": spec.to_json(),
        "final": final,
        "state": run.state,
        "guards": run.verdict.to_json() if run.verdict else None,
        "override": asdict(run.override) if run.override else None,
    }
    console.result(summary, facts_table(f"Run {run.run_id}", facts))


def show_export(run: ExportedRun, console: Console) -> None:
    """Print what was written to which file, and what was left out."""
    summary = asdict(run)
    served = summary.pop("served")
    if run.served is None:
        console.result(summary, f"{run.rows:,} rows of {run.system} written to {run.out}")
        return
    size, mean = run.served.bytes, run.served.bytes / max(run.rows, 1)
    lines = [f"{run.rows:,} queries written to {run.out}: {size:,} bytes, {mean:,.0f} each"]
    if run.served.merged:
        lines.append(f"{run.served.merged:,} had the key of a heavier one and are left out")
    if run.served.too_large:
        lines.append(f"{run.served.too_large:,} are LEFT OUT: too large for {run.format}")
    console.result({**summary, **served}, "\n".join(lines))


def show_verification(run: VerifiedRun, console: Console) -> None:
    """Print what was read; of a damaged run only the summary."""
    read = run.verification
    facts = {
        "files": f"{read.files:,} with {read.bytes:,} bytes: sha256 and rows as listed",
        "queries": f"{read.queries:,} written + {read.rejected:,} rejected = "
        f"{run.planned:,} planned, each exactly once",
    }
    table = facts_table(f"Run {read.run_id} is whole", facts)
    console.result({**asdict(read), "planned": run.planned}, *([] if read.faults else [table]))


def show_publication(run: PublishedRun, console: Console) -> None:
    """Print which run readers get now; of one that is held back only the summary.

    Raises:
        GuardsFailed: a guard holds it back; after the summary.
    """
    summary = {"root": run.root, "run_id": run.run_id, **asdict(run.publication)}
    if not run.publication.published:
        console.result(summary)
        guards.refuse_if_held_back(run.root, run.run_id, run.publication)
    latest = run.publication.latest
    newer = f"; {latest} is newer and stays the latest" if run.newer else ""
    by = f", published by {run.override.who} whatever its guards found" if run.override else ""
    console.result(
        {**summary, "override": asdict(run.override) if run.override else None},
        f"run {run.run_id} is {'older' if newer else 'the latest'} of {run.job}{by}{newer}",
    )


def show_abort(root: str, run_id: str, state: str, console: Console) -> None:
    """Print that a run is given up."""
    console.result(
        {"run_id": run_id, "state": state},
        f"run {run_id} is aborted; free its space with: rerank-batch runs gc {root} --delete",
    )


def show_garbage(root: str, garbage: Sequence[Garbage], deleted: bool, console: Console) -> None:
    """Print what is removed, or could be, run by run."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "objects", "uploads", "MB", "why"):
        table.add_column(column)
    for part in garbage:
        megabytes = f"{part.bytes / 1e6:.1f}"
        table.add_row(part.run_id, str(len(part.keys)), str(len(part.uploads)), megabytes, part.why)
    total_bytes = sum(part.bytes for part in garbage)
    summary = {
        "root": root,
        "deleted": deleted,
        "bytes": total_bytes,
        "garbage": [asdict(part) for part in garbage],
    }
    done = "removed" if deleted else "to remove with --delete; nothing was removed"
    end = f"{total_bytes / 1e6:.1f} MB {done}" if garbage else "nothing to remove"
    console.result(summary, *([table] if garbage else []), end)
