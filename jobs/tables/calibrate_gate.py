"""What a learned gate would skip and lose, in a table."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ..console import Console
from .facts import facts_table, remark_lines


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print what each signal would skip, and what to write into the configuration."""
    percent = f"{summary['confidence']:.0%}"
    table = Table(
        title=f"{summary['judged']:,} judged queries, {summary['measure']} may fall by "
        f"{summary['max_loss']:g}",
        title_justify="left",
    )
    table.add_column("signal")
    for column in ("threshold", "skipped", "loss", "held out", "loss", f"at most ({percent})"):
        table.add_column(column, justify="right")
    for signal, threshold in summary["signals"].items():
        held = threshold["held_out"]
        table.add_row(
            signal,
            "–" if threshold["threshold"] is None else f"{threshold['threshold']:.4f}",
            f"{threshold['skipped']:.1%}",
            f"{threshold['loss']:+.4f}",
            f"{held['skipped']:.1%}",
            f"{held['loss']:+.4f}",
            f"{held['bound']:+.4f}",
        )
    chosen = summary["signals"][summary["signal"]]
    facts: dict[str, object] = {
        "run": summary["run_id"],
        "in words": _in_words(summary, chosen),
    }
    console.result(
        dict(summary),
        table,
        facts_table("Gate", facts | remark_lines(summary)),
        summary["snippet"] or "",
    )


def _in_words(summary: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    signal, measure, limit = summary["signal"], summary["measure"], summary["max_loss"]
    if chosen["threshold"] is None:
        return (
            f"no threshold of {signal} keeps the loss under {limit:g} with "
            f"{summary['confidence']:.0%} confidence on so many queries: rerank them all, judge "
            "more, or allow more"
        )
    held = chosen["held_out"]
    pairs = summary["pairs_per_query"]
    text = (
        f"on queries it was not learned on {signal} skips {held['skipped']:.1%}, "
        f"{held['skipped'] * pairs:,.1f} of {pairs:,.1f} pairs a query, and {measure} "
        f"{'falls' if held['loss'] > 0 else 'rises'} by {abs(held['loss']):.4f}"
    )
    if held["bound"] > limit:
        text += (
            f"; it could fall by {held['bound']:.4f}, more than the limit, so these queries do not "
            "prove it"
        )
    return text
