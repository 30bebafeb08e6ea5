"""Look at runs: list them, show one, export its rankings."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.console import Console, facts_table
from rerank_batch.exports import Format, System, export_run
from rerank_batch.run import Run, list_runs
from rerank_batch.storage import open_root


def show_list(root_uri: str, console: Console) -> None:
    """Every run under a root, oldest first, and which one is its job's latest."""
    root = open_root(root_uri)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "created", "state", "queries", ""):
        table.add_column(column)
    rows = []
    for run_id in list_runs(root):
        run = Run.open(root, run_id)
        final = run.final()
        row = {
            "run_id": run_id,
            "job": run.spec["job"],
            "created": run.spec["created"],
            "state": final["state"] if final else "unfinished",
            "queries": final["queries"] if final else run.spec["planned"],
            "latest": run.is_latest(),
        }
        rows.append(row)
        mark = "latest" if row["latest"] else ""
        cells = (run_id, row["job"], row["created"][:19], row["state"], f"{row['queries']:,}")
        table.add_row(*cells, mark)
    console.result({"root": root_uri, "runs": rows}, table if rows else f"no runs under {root_uri}")


def show_run(root_uri: str, run_id: str, console: Console) -> None:
    """What a run is made of and what came out."""
    run = Run.open(open_root(root_uri), run_id)
    final = run.final()
    summary: dict[str, Any] = {"spec": run.spec, "final": final}
    facts: dict[str, object] = {
        "job": run.spec["job"],
        "created": run.spec["created"],
        "state": final["state"] if final else "unfinished",
        "fingerprint": run.spec["fingerprint"],
        "planned": f"{run.spec['planned']:,} queries in {run.spec['blocks']} blocks",
    }
    if final:
        facts |= {
            "queries": f"{final['queries']:,}",
            "rejects": final["rejects"] or "none",
            "pairs": f"{final['pairs']:,}",
            "metrics": json.dumps(final["metrics"], indent=1) if final["metrics"] else "none",
            "files": "\n".join(run.results_paths()),
        }
    console.result(summary, facts_table(f"Run {run_id}", facts))


def export(
    root_uri: str, run_id: str, format: Format, system: System, out: Path, console: Console
) -> None:
    """Write a run's rankings to a file."""
    rows = export_run(Run.open(open_root(root_uri), run_id), format, system, out)
    summary = {"run_id": run_id, "format": format, "system": system, "rows": rows, "out": str(out)}
    console.result(summary, f"{rows:,} rows of {system} written to {out}")
