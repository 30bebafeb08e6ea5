"""TODO."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.pipeline.placement import (
    groups_line,
)
from rerank_batch.remarks import counts_in_words
from rerank_batch.runs import (
    guards,
)
from rerank_batch.runs.cost import cost_lines
from rerank_batch.runs.differences import changes_line
from rerank_batch.workflows.rerank import _excluded_line
from rerank_batch.workflows.run_scores import scores_line

from ..console import Console
from .facts import facts_table, files_line, remark_lines

_WHOLE = ("plan", "start", "execute", "total")
"""Seconds of the driver, beside those of the stages."""


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the summary: the table first, then what happened to every row of the log.

    Raises:
        GuardsFailed: a guard kept the run back; after the summary, which tells the rest.
    """
    parts: list[Table | str] = []
    if summary["metrics"]:
        parts.append(metrics_table(summary))
    parts.append(facts_table(f"Run {summary['run_id']}", _facts(summary)))
    console.result(summary, *parts)
    guards.judge(summary)


def show_plan(summary: dict[str, Any], console: Console) -> None:
    """Print what a dry run found."""
    facts: dict[str, object] = {
        "queries": f"{summary['queries']:,} from {summary['log_rows']:,} log rows" + _tail(summary),
        "rejects": counts_in_words(summary["rejects"])
        + (": MORE than limits.max_rejects allows" if summary["too_many_rejects"] else ""),
        "judged queries": f"{summary['judged']:,}",
        "documents": f"{summary['documents']:,}",
        "pairs to score": f"{summary['pairs']:,}",
        "blocks": summary["blocks"],
    }
    if excluded := summary["excluded"]:
        facts["excluded"] = _excluded_line(**excluded)
    if summary["index_groups"]:
        facts["index"] = "\n".join(
            [groups_line(summary["index_groups"]), *summary["index_remarks"]]
        )
    if "estimated_petaflop_at_most" in summary:
        facts["work"] = f"at most {summary['estimated_petaflop_at_most']} PFLOP of scoring"
    facts |= {"files": files_line(summary["files_read"]), **remark_lines(summary)}
    console.result(summary, facts_table("Dry run: nothing was written", facts))


def metrics_table(summary: dict[str, Any]) -> Table:
    """retrieval | reranked, a row for each measure."""
    table = Table(title=f"{summary['judged']:,} judged queries", title_justify="left")
    table.add_column("measure")
    for column in ("retrieval", "reranked", "difference"):
        table.add_column(column, justify="right")
    retrieval, reranked = summary["metrics"]["retrieval"], summary["metrics"]["reranked"]
    for name, before in retrieval.items():
        after = reranked[name]
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    return table


def _facts(summary: dict[str, Any]) -> dict[str, object]:
    seconds = summary["seconds"]
    facts: dict[str, object] = {
        "queries": f"{summary['queries']:,} from {summary['log_rows']:,} log rows" + _tail(summary),
        "rejects": counts_in_words(summary["rejects"]),
        "pairs": f"{summary['pairs']:,} ({summary['pairs_per_second']:,} pairs/s)",
        "time": f"{seconds['total']:.1f} s, of it stages "
        + ", ".join(f"{name} {took:.1f}" for name, took in seconds.items() if name not in _WHOLE),
        "peak memory": f"{summary['peak_memory_gb']} GiB, all processes",
        "results": summary["files"],
    }
    if summary.get("dashboard"):
        facts["Ray dashboard"] = summary["dashboard"]
    if summary.get("index_groups"):
        facts["index"] = groups_line(summary["index_groups"])
    if log := summary.get("log"):
        facts["log of"] = f"the night of {log['date']}: {log['path']}"
    if summary.get("mode"):
        facts["reranker in"] = summary["mode"]
    if summary.get("cache"):
        facts["score cache"] = scores_line(summary["cache"])
    if summary.get("changes"):
        facts["changes"] = changes_line(summary["changes"])
        if (before := summary["changes"]["documents_before"]) is not None:
            facts["documents"] = f"{summary['documents']:,}, {before:,} before"
    if excluded := summary.get("excluded"):
        facts["excluded"] = _excluded_line(**excluded)
    if summary["gated"]:
        share = summary["gated"] / max(summary["queries"], 1)
        facts["gate"] = (
            f"{summary['gated']:,} queries not reranked ({share:.1%}), "
            f"{summary['pairs_skipped']:,} pairs and about {summary['gate_saved_seconds']:,} s less"
        )
    if summary["fell_back"]:
        facts["fell back"] = f"{summary['fell_back']:,} queries keep the order they had"
    facts |= cost_lines(summary["cost"])
    if summary["done_before"]:
        facts["resumed"] = f"{summary['done_before']:,} queries were done before"
    if summary["events"]:
        facts["noticed"] = "\n".join(f"{n} x {what}" for what, n in summary["events"].items())
    if summary.get("guards"):
        facts["guards"] = guards.guards_line(summary["guards"])
    if summary["judged_not_in_log"]:
        facts["judged elsewhere"] = f"{summary['judged_not_in_log']:,} queries not in this log"
    return facts | remark_lines(summary)


def _tail(summary: Mapping[str, Any]) -> str:
    """What queries.head left out, for the line of the queries."""
    left_out = summary.get("left_out") or {"queries": 0}
    if not left_out["queries"]:
        return ""
    return (
        f"; the tail is left out: {left_out['queries']:,} queries, {left_out['rows']:,} log rows, "
        f"weight {left_out['weight']:,g}"
    )
