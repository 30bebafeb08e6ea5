"""Learn the gate's threshold on judged queries: whom can the reranker skip, and at what loss?"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from jobs.console import Console, facts_table
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.gate.threshold import calibrate
from rerank_batch.evaluation.judged import RERANKED
from rerank_batch.retrieval.gate import sureness_of_value
from rerank_batch.runs import Run
from rerank_batch.workflows.evaluated import evaluated_run
from rerank_batch.workflows.input_facts import remark_lines
from rerank_batch.workflows.rerank import Start

_MAX_LOSS = 0.005


def calibrate_gate(
    config: Config,
    console: Console,
    start: Start | None = None,
    from_run: str | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Rerank the judged queries, all of them, and learn a threshold for each signal.

    ``reranker.gate`` may name the signal and ``max_loss`` (by default 0.005 of the first measure);
    without a signal there the one that skips the most queries is proposed.
    """
    if config.reranker is None:
        raise ConfigError("--calibrate-gate needs a reranker: without one nothing can be skipped")
    gate = config.reranker.gate
    max_loss = gate.max_loss if gate and gate.max_loss is not None else _MAX_LOSS
    whole = config.reranker.model_copy(update={"gate": None})
    two = config.evaluation.model_copy(update={"systems": {}})
    evaluated = evaluated_run(
        config.model_copy(update={"reranker": whole, "evaluation": two}), console, start, from_run
    )
    run, comparison = evaluated.run, evaluated.comparison
    _refuse_unfit(run)
    measure = comparison.headline
    gains = comparison.gains(RERANKED, measure)
    found = {}
    for signal, sure in comparison.signals.items():
        read = ~np.isneginf(sure)  # rejected queries are read by nobody
        judged = int(np.count_nonzero(read))
        learned = calibrate(sure[read], gains[read], max_loss, confidence)
        if learned is None:
            raise InputError(
                f"{judged:,} judged queries are too few to learn a threshold from: 20 at least, "
                "and some hundreds for a small loss"
            )
        threshold = learned.threshold
        found[signal] = {
            **asdict(learned),
            "threshold": None if threshold is None else sureness_of_value(signal, threshold),
        }
    chosen = gate.signal if gate else _best(found, max_loss)
    return {
        "run_id": run.run_id,
        "measure": measure,
        "judged": judged,
        "max_loss": max_loss,
        "confidence": confidence,
        "pairs_per_query": run.finished()["pairs"] / max(run.finished()["queries"], 1),
        "signals": found,
        "remarks": list(evaluated.remarks),
        "signal": chosen,
        "snippet": _snippet(chosen, found[chosen]["threshold"], max_loss),
    }


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
    for signal, found in summary["signals"].items():
        held = found["held_out"]
        table.add_row(
            signal,
            "–" if found["threshold"] is None else f"{found['threshold']:.4f}",
            f"{found['skipped']:.1%}",
            f"{found['loss']:+.4f}",
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


def _best(found: Mapping[str, Any], max_loss: float) -> str:
    """The signal that skips most queries it was not learned on, and keeps the limit there."""

    def merit(signal: str) -> tuple[bool, float]:
        held = found[signal]["held_out"]
        return held["bound"] <= max_loss, held["skipped"]

    return max(found, key=merit)


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
    told = (
        f"on queries it was not learned on {signal} skips {held['skipped']:.1%}, "
        f"{held['skipped'] * pairs:,.1f} of {pairs:,.1f} pairs a query, and {measure} "
        f"{'falls' if held['loss'] > 0 else 'rises'} by {abs(held['loss']):.4f}"
    )
    if held["bound"] > limit:
        told += (
            f"; it could fall by {held['bound']:.4f}, more than the limit, so these queries do not "
            "prove it"
        )
    return told


def _snippet(signal: str, threshold: float | None, max_loss: float) -> str | None:
    if threshold is None:
        return None
    # Rounded to where fewer queries are skipped, so that what was shown to hold still does.
    up = np.floor if signal == "entropy" else np.ceil
    gate = {"signal": signal, "threshold": float(up(threshold * 1e6) / 1e6), "max_loss": max_loss}
    return str(yaml.safe_dump({"reranker": {"gate": gate}}, sort_keys=False))


def _refuse_unfit(run: Run) -> None:
    if run.spec.get("systems"):
        raise ConfigError(
            f"run {run.run_id} compares several systems: learn a gate from a run of one reranker"
        )
    reranker = run.spec["config"]["reranker"]
    if reranker is None or reranker["gate"] is not None:
        raise ConfigError(
            f"run {run.run_id} had {'no reranker' if reranker is None else 'a gate'}: what the "
            "reranker would have gained on every query is not known from it"
        )
