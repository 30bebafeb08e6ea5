"""The table of the command `benchmark estimate`."""

from rerank_batch.workflows.estimate import Estimate

from ..console import Console
from .facts import facts_table


def show(estimate: Estimate, console: Console) -> None:
    """Print the estimate."""
    hours = estimate.hours
    facts: dict[str, object] = {
        "tried": f"{estimate.sample_queries:,} of {estimate.queries:,} queries in "
        f"{estimate.sample_seconds:.0f} s"
        + (f", which cost {estimate.sample_billed:,.4f}" if estimate.services else ""),
        "pairs": f"{estimate.pairs:,}, {estimate.hit_rate:.1%} of them known",
        "time": f"{hours * 60:,.1f} minutes" if hours < 2 else f"{hours:,.1f} hours",
        "of it": f"{estimate.start_seconds:.0f} s of starting; then the busiest stage is "
        f"{estimate.busiest_stage} ({estimate.actors[estimate.busiest_stage]} actors"
        + (f", {estimate.mode})" if estimate.mode else ")"),
    }
    if estimate.cost is None:
        facts["cost"] = "unknown: set cost.per_hour to what this cluster costs"
    else:
        facts["cost"] = f"{estimate.cost:,.2f} {estimate.currency}"
    if estimate.services:
        facts["cost"] = f"{facts['cost']}, of it {estimate.billed:,.2f} billed by services"
    console.result(estimate.to_json(), facts_table("Estimate", facts))
