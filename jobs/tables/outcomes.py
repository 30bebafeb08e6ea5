"""What became of the queries, in a table and in sentences."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.report.page import p_text
from rerank_batch.workflows.answers import (
    answers_line,
)


def outcomes_parts(summary: Mapping[str, Any] | None) -> list[Table | str]:
    """The table of outcomes, what it means, and what it lacks."""
    if summary is None:
        return []
    several = len({row["system"] for row in summary["rows"]}) > 1
    parts: list[Table | str] = [_table(summary, several)] if summary["rows"] else []
    for row in summary["rows"]:
        name = _name(row, several)
        parts.append(f"{name}: {row['in_words']}")
        if row["doubt"]:
            parts.append(f"{name}: {row['doubt']}")
    parts.append(f"outcomes: {summary['joined']['in_words']}")
    parts += summary["remarks"]
    if summary["answers"]:
        parts.append(answers_line(summary["answers"]))
    return parts


def _table(summary: Mapping[str, Any], several: bool) -> Table:
    """Without the intervals, which are in metrics.json and on the page: so it fits a terminal."""
    table = Table(title="Outcomes", title_justify="left", pad_edge=False)
    after = "system's" if several else summary["rows"][0]["system"]
    table.add_column("outcome", overflow="fold")
    for column in (
        "queries",
        summary["baseline"],
        after,
        "gain",
        "better/\nsame/worse",
        "p",
        "result",
        f"{summary['headline']}\ngain there",
    ):
        table.add_column(column, justify="right", overflow="fold")
    for row in summary["rows"]:
        table.add_row(_name(row, several), *_cells(row))
    return table


def _name(row: Mapping[str, Any], several: bool) -> str:
    return f"{row['outcome']}, {row['system']}" if several else str(row["outcome"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    if not row["both"]:
        return ["0", *["–"] * 7]
    headline = row["headline_difference"]
    return [
        f"{row['both']:,}",
        f"{row['baseline_mean']:.4f}",
        f"{row['mean']:.4f}",
        f"{row['difference']:+.4f}",
        f"{row['wins']}/{row['ties']}/{row['losses']}",
        p_text(row["corrected_p_value"]),
        row["result"],
        "–" if headline is None else f"{headline:+.4f}",
    ]
