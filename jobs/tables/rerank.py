"""The run of a reranker, and its dry run, as tables."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.pipeline.placement import (
    groups_line,
)
from rerank_batch.remarks import counts_in_words
from rerank_batch.retrieval.excluded import excluded_line
from rerank_batch.runs import (
    guards,
)
from rerank_batch.runs.cost import cost_lines
from rerank_batch.runs.differences import changes_line
from rerank_batch.runs.summary import RunSummary, RunTotals
from rerank_batch.workflows.dry_run import DryRun
from rerank_batch.workflows.run_scores import scores_line

from ..console import Console
from .facts import facts_table, files_line, remark_lines


def show(summary: RunSummary, console: Console) -> None:
    """Print the summary: the table first, then what happened to every row of the log.

    Raises:
        GuardsFailed: a guard kept the run back; after the summary, which tells the rest.
    """
    parts: list[Table | str] = []
    if summary.metrics:
        parts.append(metrics_table(summary.totals))
    parts.append(facts_table(f"Run {summary.run_id}", _facts(summary)))
    console.result(summary.to_json(), *parts)
    guards.refuse_if_held_back(summary.root, summary.run_id, summary.publication)


def show_plan(plan: DryRun, console: Console) -> None:
    """Print what a dry run found."""
    facts: dict[str, object] = {
        "queries": f"{plan.queries:,} from {plan.log_rows:,} log rows" + _tail(plan.left_out),
        "rejects": counts_in_words(plan.rejects)
        + (": MORE than limits.max_rejects allows" if plan.too_many_rejects else ""),
        "judged queries": f"{plan.judged:,}",
        "documents": f"{plan.documents:,}",
        "pairs to score": f"{plan.pairs:,}",
        "blocks": plan.blocks,
    }
    if excluded := plan.excluded:
        facts["excluded"] = excluded_line(**excluded)
    if plan.index_groups:
        facts["index"] = "\n".join([groups_line(plan.index_groups), *plan.index_remarks])
    if plan.petaflop_at_most is not None:
        facts["work"] = f"at most {plan.petaflop_at_most} PFLOP of scoring"
    facts |= {
        "files": files_line(plan.files_read),
        **remark_lines(plan.remarks),
    }
    console.result(plan.to_json(), facts_table("Dry run: nothing was written", facts))


def metrics_table(totals: RunTotals) -> Table:
    """retrieval | reranked, a row for each measure."""
    table = Table(title=f"{totals.judged:,} judged queries", title_justify="left")
    table.add_column("measure")
    for column in ("retrieval", "reranked", "difference"):
        table.add_column(column, justify="right")
    retrieval, reranked = totals.metrics["retrieval"], totals.metrics["reranked"]
    for name, before in retrieval.items():
        after = reranked[name]
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    return table


def _facts(summary: RunSummary) -> dict[str, object]:
    totals = summary.totals
    seconds = totals.seconds
    tail = _tail(totals.left_out)
    facts: dict[str, object] = {
        "queries": f"{totals.queries:,} from {totals.log_rows:,} log rows{tail}",
        "rejects": counts_in_words(totals.rejects),
        "pairs": f"{totals.pairs:,} ({totals.pairs_per_second:,} pairs/s)",
        "time": f"{seconds.total:.1f} s, of it stages "
        + ", ".join(f"{name} {took:.1f}" for name, took in seconds.stages.items()),
        "peak memory": f"{totals.peak_memory_gb} GiB, all processes",
        "results": summary.files,
    }
    if totals.dashboard:
        facts["Ray dashboard"] = totals.dashboard
    if totals.index_groups:
        facts["index"] = groups_line(totals.index_groups)
    if log := totals.log:
        facts["log of"] = f"the night of {log['date']}: {log['path']}"
    if totals.mode:
        facts["reranker in"] = totals.mode
    if totals.cache:
        facts["score cache"] = scores_line(totals.cache)
    if summary.changes:
        facts["changes"] = changes_line(summary.changes)
        if (before := summary.changes.documents_before) is not None:
            facts["documents"] = f"{totals.documents:,}, {before:,} before"
    if totals.excluded:
        facts["excluded"] = excluded_line(**totals.excluded)
    return facts | _special_facts(summary)


def _special_facts(summary: RunSummary) -> dict[str, object]:
    """Lines that only some runs have, and the costs."""
    totals = summary.totals
    facts: dict[str, object] = {}
    if totals.gated:
        share = totals.gated / max(totals.queries, 1)
        facts["gate"] = (
            f"{totals.gated:,} queries not reranked ({share:.1%}), "
            f"{totals.pairs_skipped:,} pairs and about {totals.gate_saved_seconds:,} s less"
        )
    if totals.fell_back:
        facts["fell back"] = f"{totals.fell_back:,} queries keep the order they had"
    facts |= cost_lines(totals.cost)
    if totals.done_before:
        facts["resumed"] = f"{totals.done_before:,} queries were done before"
    if totals.events:
        facts["noticed"] = "\n".join(f"{n} x {what}" for what, n in totals.events.items())
    if summary.publication and summary.publication.guards:
        facts["guards"] = guards.guards_line(summary.publication.guards)
    if totals.judged_not_in_log:
        facts["judged elsewhere"] = f"{totals.judged_not_in_log:,} queries not in this log"
    return facts | remark_lines(totals.remarks)


def _tail(left_out: Mapping[str, Any]) -> str:
    """What queries.head left out, for the line of the queries."""
    if not left_out["queries"]:
        return ""
    return (
        f"; the tail is left out: {left_out['queries']:,} queries, {left_out['rows']:,} log rows, "
        f"weight {left_out['weight']:,g}"
    )
