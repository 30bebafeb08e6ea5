"""What `finetune` plans, and what it gained, in a table."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ..console import Console
from .facts import facts_table


def show_plan(plan: Mapping[str, Any], console: Console) -> None:
    """Print what `dry_run` found."""
    left_out = ", ".join(f"{count:,} {what}" for what, count in plan["left_out"].items())
    facts = {
        "start model": f"{plan['made_of']['start_model']}, {plan['head']} head",
        "labels": ", ".join(
            f"{split} {plan['queries'][split]:,} queries, {rows:,} rows"
            for split, rows in plan["rows"].items()
        ),
        "left out": left_out or "nothing",
        "training": f"{plan['steps']:,} steps of {plan['pairs_per_step']} pairs, each query "
        f"{plan['rounds']:.1f} times",
        "measuring": f"{plan['measurements']:,} times {plan['dev_pairs']:,} pairs of "
        f"{plan['dev_queries']:,} dev queries",
    }
    console.result(dict(plan), facts_table("Plan", facts))


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print what was trained and what it gained."""
    facts = {
        "model": summary["model"],
        "use it as": f"reranker.model: cross-encoder:{summary['model']}",
        "steps": f"{summary['steps']:,}, the best at {summary['best_step']:,}: {summary['ended']}",
        "labels": summary["made_of"]["labels"][:16],
    }
    table = Table(title=f"{summary['measure']} over labelled candidates", title_justify="left")
    for column in ("split", "over"):
        table.add_column(column)
    for column in ("before", "tuned", "gain", "95 % interval", "p", "result"):
        table.add_column(column, justify="right")
    for each in summary["measured"]:
        for over, gain in each["gains"].items():
            low_high = gain["interval"]
            table.add_row(
                f"{each['split']} ({each['queries']:,} queries)",
                over,
                f"{each['means'][over]:.4f}",
                f"{each['means']['tuned']:.4f}",
                f"{gain['difference']:+.4f}",
                "–" if low_high is None else f"{low_high[0]:+.3f} {low_high[1]:+.3f}",
                f"{gain['corrected_p_value']:.3f}",
                gain["outcome"],
            )
    console.result(dict(summary), facts_table("Finetune", facts), table)
