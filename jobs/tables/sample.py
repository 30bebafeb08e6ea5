"""The table of the command `sample`."""

from typing import Any

from ..console import Console
from .facts import facts_table


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the summary."""
    dirt = ", ".join(f"{kind} {count}" for kind, count in summary["dirty_rows"].items())
    facts = {
        "folder": summary["out"],
        "documents": f"{summary['documents']:,}",
        "queries": f"{summary['queries']:,}, of them {summary['test_queries']:,} for testing",
        "judgements": f"{summary['judgements']:,}",
        "clicks": f"{summary['click_rows']:,} rows, simulated",
        "log": f"{summary['log_rows']:,} rows over {summary['days']} days",
        "dirt in the log": dirt,
        "time": f"{summary['seconds']:.0f} s",
    }
    console.result(summary, facts_table("Sample", facts))
