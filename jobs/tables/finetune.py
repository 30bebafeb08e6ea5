"""What `finetune` plans, and what it gained, in a table."""

from typing import TYPE_CHECKING

from rich.table import Table

from rerank_batch.workflows.finetune import FinetunePlan

from ..console import Console
from .facts import facts_table

if TYPE_CHECKING:  # it loads torch
    from rerank_batch.training.result import FinetuneSummary


def show_plan(plan: FinetunePlan, console: Console) -> None:
    """Print what `dry_run` found."""
    left_out = ", ".join(f"{count:,} {what}" for what, count in plan.left_out.items())
    facts = {
        "start model": f"{plan.made_of['start_model']}, {plan.head} head",
        "labels": ", ".join(
            f"{split} {plan.queries[split]:,} queries, {rows:,} rows"
            for split, rows in plan.rows.items()
        ),
        "left out": left_out or "nothing",
        "training": f"{plan.steps:,} steps of {plan.pairs_per_step} pairs, each query "
        f"{plan.rounds:.1f} times",
        "measuring": f"{plan.measurements:,} times {plan.dev_pairs:,} pairs of "
        f"{plan.dev_queries:,} dev queries",
    }
    console.result(plan.to_json(), facts_table("Plan", facts))


def show(summary: "FinetuneSummary", console: Console) -> None:
    """Print what was trained and what it gained."""
    facts = {
        "model": summary.model,
        "use it as": f"reranker.model: cross-encoder:{summary.model}",
        "steps": f"{summary.steps:,}, the best at {summary.best_step:,}: {summary.ended}",
        "labels": summary.made_of["labels"][:16],
    }
    table = Table(title=f"{summary.measure} over labelled candidates", title_justify="left")
    for column in ("split", "over"):
        table.add_column(column)
    for column in ("before", "tuned", "gain", "95 % interval", "p", "result"):
        table.add_column(column, justify="right")
    for measured in summary.measured:
        for over, gain in measured.gains.items():
            low_high = gain.interval
            table.add_row(
                f"{measured.split} ({measured.queries:,} queries)",
                over,
                f"{measured.means[over]:.4f}",
                f"{measured.means['tuned']:.4f}",
                f"{gain.difference:+.4f}",
                "–" if low_high is None else f"{low_high[0]:+.3f} {low_high[1]:+.3f}",
                f"{gain.corrected_p_value:.3f}",
                gain.outcome,
            )
    console.result(summary.to_json(), facts_table("Finetune", facts), table)
