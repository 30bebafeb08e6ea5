"""TODO."""

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table

from rerank_batch.errors import RunConflict
from rerank_batch.runs import (
    COMPLETE,
    Run,
    guards,
    is_latest,
    list_runs,
)
from rerank_batch.runs.decisions import is_held_back, read_override, read_verdict
from rerank_batch.storage import open_root

from ..console import Console
from .facts import facts_table


def show_list(root_uri: str, console: Console) -> None:
    """Every run under a root, oldest first, and which one is its job's latest."""
    root = open_root(root_uri)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "job", "created", "state", "queries", ""):
        table.add_column(column)
    rows: list[dict[str, Any]] = []
    for run_id in list_runs(root):
        try:
            run = Run.open(root, run_id)
        except RunConflict:
            table.add_row(run_id, "", "", "of another version", "", "")
            rows.append({"run_id": run_id, "state": "of another version"})
            continue
        final = run.final()
        state = final["state"] if final else "unfinished"
        latest, held_back = is_latest(run), is_held_back(run)
        spec = run.spec
        row = {
            "run_id": run_id,
            "job": spec.job,
            "created": spec.created,
            "state": state,
            "queries": spec.planned,
            "latest": latest,
            "held_back": held_back,
        }
        rows.append(row)
        mark = "latest" if latest else "held back" if held_back else ""
        cells = (run_id, spec.job, spec.created[:19], state, f"{spec.planned:,}")
        table.add_row(*cells, mark)
    console.result({"root": root_uri, "runs": rows}, table if rows else f"no runs under {root_uri}")


def show_run(root_uri: str, run_id: str, console: Console) -> None:
    """What a run is made of and what came out."""
    run = Run.open(open_root(root_uri), run_id)
    final = run.final()
    state = final["state"] if final else "unfinished"
    owner = run.last_owner()
    verdict, override = read_verdict(run), read_override(run)
    summary: dict[str, Any] = {
        "spec": run.spec.as_json(),
        "final": final,
        "state": state,
        "guards": verdict.as_json() if verdict else None,
        "override": asdict(override) if override else None,
    }
    facts: dict[str, object] = {
        "job": run.spec.job,
        "created": run.spec.created,
        "state": state,
        "fingerprint": run.spec.fingerprint,
        "planned": f"{run.spec.planned:,} queries in {run.spec.blocks} blocks",
    }
    if final is None:
        facts["driver"] = f"{owner}" if owner else "none yet"
        facts["go on"] = run.how_to_go_on()
    elif state == COMPLETE:
        facts |= {
            "queries": f"{final['queries']:,}",
            "rejects": final["rejects"] or "none",
            "pairs": f"{final['pairs']:,}",
            "metrics": json.dumps(final["metrics"], indent=1) if final["metrics"] else "none",
            "files": "\n".join(run.results_paths()),
        }
        if verdict is not None:
            facts["guards"] = guards.guards_line(verdict.as_json()["guards"])
        if override is not None:
            facts["published"] = f"by {override.who} at {override.when}, whatever the guards"
    console.result(summary, facts_table(f"Run {run_id}", facts))
