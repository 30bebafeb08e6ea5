"""What a learned gate would skip and lose, in a table."""

from rich.table import Table

from rerank_batch.workflows.calibrate_gate import LearnedGate

from ..console import Console
from .facts import facts_table, remark_lines


def show(gate: LearnedGate, console: Console) -> None:
    """Print what each signal would skip, and what to write into the configuration."""
    percent = f"{gate.confidence:.0%}"
    table = Table(
        title=f"{gate.judged:,} judged queries, {gate.measure} may fall by {gate.max_loss:g}",
        title_justify="left",
    )
    table.add_column("signal")
    for column in ("threshold", "skipped", "loss", "held out", "loss", f"at most ({percent})"):
        table.add_column(column, justify="right")
    for signal, learned in gate.signals.items():
        held = learned.held_out
        table.add_row(
            signal,
            "–" if learned.threshold is None else f"{learned.threshold:.4f}",
            f"{learned.skipped:.1%}",
            f"{learned.loss:+.4f}",
            f"{held.skipped:.1%}",
            f"{held.loss:+.4f}",
            f"{held.bound:+.4f}",
        )
    facts: dict[str, object] = {
        "run": gate.run_id,
        "in words": _in_words(gate),
    }
    console.result(
        gate.to_json(),
        table,
        facts_table("Gate", facts | remark_lines(gate.remarks)),
        gate.snippet or "",
    )


def _in_words(gate: LearnedGate) -> str:
    signal, measure, limit = gate.signal, gate.measure, gate.max_loss
    chosen = gate.signals[signal]
    if chosen.threshold is None:
        return (
            f"no threshold of {signal} keeps the loss under {limit:g} with "
            f"{gate.confidence:.0%} confidence on so many queries: rerank them all, judge "
            "more, or allow more"
        )
    held = chosen.held_out
    pairs = gate.pairs_per_query
    sentence = (
        f"on queries it was not learned on {signal} skips {held.skipped:.1%}, "
        f"{held.skipped * pairs:,.1f} of {pairs:,.1f} pairs a query, and {measure} "
        f"{'falls' if held.loss > 0 else 'rises'} by {abs(held.loss):.4f}"
    )
    if held.bound > limit:
        sentence += (
            f"; it could fall by {held.bound:.4f}, more than the limit, so these queries do not "
            "prove it"
        )
    return sentence
