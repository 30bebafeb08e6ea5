"""The table of the command `benchmark estimate`."""

from typing import Any

from ..console import Console
from .facts import facts_table


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the estimate."""
    hours = summary["hours"]
    facts: dict[str, object] = {
        "tried": f"{summary['sample_queries']:,} of {summary['queries']:,} queries in "
        f"{summary['sample_seconds']:.0f} s"
        + (f", which cost {summary['sample_billed']:,.4f}" if summary["services"] else ""),
        "pairs": f"{summary['pairs']:,}, {summary['hit_rate']:.1%} of them known",
        "time": f"{hours * 60:,.1f} minutes" if hours < 2 else f"{hours:,.1f} hours",
        "of it": f"{summary['start_seconds']:.0f} s of starting; then the busiest stage is "
        f"{summary['busiest_stage']} ({summary['actors'][summary['busiest_stage']]} actors"
        + (f", {summary['mode']})" if summary["mode"] else ")"),
    }
    if summary["cost"] is None:
        facts["cost"] = "unknown: set cost.per_hour to what this cluster costs"
    else:
        facts["cost"] = f"{summary['cost']:,.2f} {summary['currency']}"
    if summary["services"]:
        facts["cost"] = f"{facts['cost']}, of it {summary['billed']:,.2f} billed by services"
    console.result(summary, facts_table("Estimate", facts))
