"""What became of the queries, in a table and in sentences."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.outcomes.study import OutcomeRow, OutcomeStudy
from rerank_batch.evaluation.report.headline import p_text


def outcomes_parts(study: OutcomeStudy | None) -> list[Table | str]:
    """The table of outcomes, what it means, and what it lacks."""
    if study is None:
        return []
    several = len({row.system for row in study.rows}) > 1
    parts: list[Table | str] = [_table(study, several)] if study.rows else []
    for row in study.rows:
        name = _name(row, several)
        parts.append(f"{name}: {study.in_words(row)}")
        if row.test and row.test.doubt:
            parts.append(f"{name}: {row.test.doubt}")
    parts.append(f"outcomes: {study.joined.in_words()}")
    parts += study.remarks
    if study.answers:
        parts.append(answers_line(study.answers))
    return parts


def _table(study: OutcomeStudy, several: bool) -> Table:
    """Without the intervals, which are in metrics.json and on the page: so it fits a terminal."""
    table = Table(title="Outcomes", title_justify="left", pad_edge=False)
    after = "system's" if several else study.rows[0].system
    table.add_column("outcome", overflow="fold")
    for column in (
        "queries",
        study.baseline,
        after,
        "gain",
        "better/\nsame/worse",
        "p",
        "result",
        f"{study.headline}\ngain there",
    ):
        table.add_column(column, justify="right", overflow="fold")
    for row in study.rows:
        table.add_row(_name(row, several), *_cells(row))
    return table


def _name(row: OutcomeRow, several: bool) -> str:
    return f"{row.outcome}, {row.system}" if several else row.outcome


def _cells(row: OutcomeRow) -> list[str]:
    test, headline = row.test, row.headline_difference
    if test is None:
        return ["0", *["–"] * 7]
    return [
        f"{row.both:,}",
        f"{row.baseline_mean:.4f}",
        f"{row.mean:.4f}",
        f"{test.difference:+.4f}",
        f"{test.wins}/{test.ties}/{test.losses}",
        p_text(test.corrected_p_value),
        test.outcome,
        "–" if headline is None else f"{headline:+.4f}",
    ]


def answers_line(summary: Mapping[str, Any]) -> str:
    """What was asked, what was known, and what it cost."""
    used, known = summary["used"], summary["known"]
    parts = [
        f"{summary['graded']:,} of {summary['lists']:,} lists graded",
        f"{known:,} of {summary['prompts']:,} prompts known",
        f"{used['requests']:,} requests, {used['tokens']:,} tokens in and "
        f"{used['output_tokens']:,} out",
    ]
    if summary["priced"]:
        parts.append(f"{summary['cost']:,.4f} {summary['currency']}")
    return f"answers: {'; '.join(parts)}"
