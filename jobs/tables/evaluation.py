"""What an evaluation prints: systems, what the tests say of them, and what cannot be decided."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.ground_truth import JUDGEMENTS
from rerank_batch.evaluation.report.headline import headline_cells
from rerank_batch.runs.summary import CacheFacts
from rerank_batch.workflows import acceptance
from rerank_batch.workflows.run_scores import scores_line

from ..console import Console
from .facts import facts_table, remark_lines
from .insights import depth_parts, failures_line
from .outcomes import outcomes_parts
from .segments import segment_parts


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the comparison, what it cannot decide, and where the report is."""
    title = f"{summary['judged']:,} judged queries"
    table = Table(title=title, title_justify="left", pad_edge=False)
    (first, *others), *rows = headline_cells(summary)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    several = len(summary["metrics"]) > 2
    for number, row in enumerate(rows):
        last_of_system = number + 1 < len(rows) and rows[number + 1][0] != ""
        table.add_row(*row, end_section=several and last_of_system)
    headline = summary["comparison"][0]["measure"]
    doubts = [
        f"{row['system'] if several else row['measure']}: {row['doubt']}"
        for row in summary["comparison"]
        if row["doubt"] and (not several or row["measure"] == headline)
    ]
    facts: dict[str, object] = {
        "run": summary["run_id"],
        "pairs": f"{summary['pairs']:,} read"
        + (f"; {scores_line(CacheFacts(**summary['cache']))}" if summary["cache"] else ""),
        "report": summary["report"],
    }
    if summary.get("dashboard"):
        facts["Ray dashboard"] = summary["dashboard"]
    facts |= remark_lines(summary)
    about = f" of {summary['best']}, the best by the first measure" if several else ""
    console.result(
        summary,
        *([_systems_table(summary)] if several else []),
        table,
        "p: randomisation test, corrected by Holm over this table. Intervals are not corrected.",
        *([] if summary["labels"] == JUDGEMENTS else [summary["labels"]]),
        *doubts,
        *(
            f"{name} has no list for {count:,} of the queries: they count as 0"
            for name, count in summary["missing"].items()
            if count
        ),
        *depth_parts(summary["depth"], about),
        failures_line(summary["failures"], about),
        *segment_parts(summary["segments"]),
        *outcomes_parts(summary["outcomes"]),
        *acceptance.lines(summary["checks"]),
        facts_table("Evaluation", facts),
    )


def _systems_table(summary: Mapping[str, Any]) -> Table:
    """Every system with its means: the baseline first."""
    table = Table(title="Systems", title_justify="left", pad_edge=False)
    table.add_column("system")
    for name in next(iter(summary["metrics"].values())):
        table.add_column(name, justify="right")
    table.add_column("what it is")
    for system, means in summary["metrics"].items():
        values = [f"{value:.4f}" for value in means.values()]
        table.add_row(system, *values, summary["systems"].get(system, ""))
    return table
