"""Learn the gate's threshold on judged queries: whom can the reranker skip, and at what loss?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import yaml

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.gate.threshold import LearnedThreshold, calibrate
from rerank_batch.evaluation.judged import RERANKED
from rerank_batch.remarks import Remark, remark_objects
from rerank_batch.reporter import Reporter
from rerank_batch.retrieval.gate import sureness_of_value
from rerank_batch.runs import Run
from rerank_batch.schema import JsonObject
from rerank_batch.workflows.measured_run import measured_run
from rerank_batch.workflows.start import Start

_MAX_LOSS = 0.005


@dataclass(frozen=True)
class LearnedGate:
    """A threshold for each signal, on the scale of its values, and the ``signal`` to gate by.

    ``judged`` is the number of queries it was learned on, ``snippet`` what to write into the
    configuration; None where no threshold keeps the limit.
    """

    run_id: str
    measure: str
    judged: int
    max_loss: float
    confidence: float
    pairs_per_query: float
    signals: Mapping[str, LearnedThreshold]
    remarks: tuple[Remark, ...]
    signal: str
    snippet: str | None

    def to_json(self) -> JsonObject:
        """The object that ``--json`` prints."""
        return {**asdict(self), "remarks": remark_objects(self.remarks)}


def calibrate_gate(
    config: Config,
    reporter: Reporter,
    start: Start | None = None,
    from_run: str | None = None,
    confidence: float = 0.95,
) -> LearnedGate:
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
    measured = measured_run(
        config.model_copy(update={"reranker": whole, "evaluation": two}), reporter, start, from_run
    )
    run, comparison = measured.run, measured.comparison
    _refuse_unfit(run)
    measure = comparison.headline
    gains = comparison.gains(RERANKED, measure)
    thresholds = {}
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
        value = None if threshold is None else sureness_of_value(signal, threshold)
        thresholds[signal] = replace(learned, threshold=value)
    chosen = gate.signal if gate else _best(thresholds, max_loss)
    return LearnedGate(
        run_id=run.run_id,
        measure=measure,
        judged=judged,
        max_loss=max_loss,
        confidence=confidence,
        pairs_per_query=run.finished()["pairs"] / max(run.finished()["queries"], 1),
        signals=thresholds,
        remarks=measured.remarks,
        signal=chosen,
        snippet=_snippet(chosen, thresholds[chosen].threshold, max_loss),
    )


def _best(thresholds: Mapping[str, LearnedThreshold], max_loss: float) -> str:
    """The signal that skips most queries it was not learned on, and keeps the limit there."""

    def merit(signal: str) -> tuple[bool, float]:
        held = thresholds[signal].held_out
        return held.bound <= max_loss, held.skipped

    return max(thresholds, key=merit)


def _snippet(signal: str, threshold: float | None, max_loss: float) -> str | None:
    if threshold is None:
        return None
    # Rounded to where fewer queries are skipped, so that what was shown to hold still does.
    up = np.floor if signal == "entropy" else np.ceil
    gate = {"signal": signal, "threshold": float(up(threshold * 1e6) / 1e6), "max_loss": max_loss}
    return str(yaml.safe_dump({"reranker": {"gate": gate}}, sort_keys=False))


def _refuse_unfit(run: Run) -> None:
    if run.spec.systems:
        raise ConfigError(
            f"run {run.run_id} compares several systems: learn a gate from a run of one reranker"
        )
    reranker = run.spec.reranker
    if reranker is None or reranker["gate"] is not None:
        raise ConfigError(
            f"run {run.run_id} had {'no reranker' if reranker is None else 'a gate'}: what the "
            "reranker would have gained on every query is not known from it"
        )
