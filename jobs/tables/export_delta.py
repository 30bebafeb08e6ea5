"""The table of the command `export-delta`."""

from typing import Any

from ..console import Console
from .facts import facts_table


def show(summary: dict[str, Any], console: Console) -> None:
    """Print what was written."""
    facts = {
        "delta": summary["out"],
        "use it as": f"reranker.model: cross-encoder:{summary['out']}",
        "size": f"{summary['bytes'] / 1e6:.2f} MB over {summary['base']}",
        "kept": f"{summary['kept']} in {summary['matrices']} matrices; of what changed in one at "
        f"most {summary['largest_loss']:.1%} are lost",
    }
    if (lost := summary["lost"]) is not None:
        low_high = lost["interval"] or (0.0, 0.0)
        facts["quality"] = (
            f"{lost['measure']} {lost['whole']:.4f} whole, {lost['delta']:.4f} as delta "
            f"({low_high[0]:+.4f} to {low_high[1]:+.4f}) on {lost['queries']:,} dev queries"
        )
    console.result(summary, facts_table("Delta", facts))
