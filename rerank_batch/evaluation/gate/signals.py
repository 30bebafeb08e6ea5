"""The signals of retrieval scores that a gate can read, and what each would trade in a run."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rerank_batch.config import GateConfig
from rerank_batch.evaluation.comparison import Comparison, Signal
from rerank_batch.evaluation.gate.study import GateStudy, OwnGate, study_gates
from rerank_batch.remarks import NotKnown
from rerank_batch.retrieval.gate import sureness, sureness_of_value

SIGNALS = ("margin", "margin@5", "margin@10", "top1", "entropy")


def gate_signals(gate: GateConfig | None) -> dict[str, Signal]:
    """The signals of a gate by their names, that of the one that is configured first."""
    names = dict.fromkeys([*([gate.signal] if gate else []), *SIGNALS])
    return {name: partial(sureness, name) for name in names}


def gate_study(
    reranker: Mapping[str, Any] | None, gate: GateConfig | None, comparison: Comparison
) -> GateStudy | NotKnown:
    """What each signal of the retrieval scores would skip and lose.

    ``reranker`` is that of the run's own configuration, ``gate`` one whose place is to be shown. A
    query that was rejected counts in the means and as one that no gate skips.
    """
    if reranker is None:
        return NotKnown("it had no reranker")
    used = reranker.get("gate")
    if used and used.get("threshold") is not None:
        return NotKnown(
            f"it had a gate itself ({used['signal']}), so what the reranker would have gained on "
            "the queries it skipped is not in it"
        )
    own = None
    if gate is not None and gate.threshold is not None:
        sign = "at most" if gate.signal == "entropy" else "at least"
        own = OwnGate(
            gate.signal,
            sureness_of_value(gate.signal, gate.threshold),
            f"{gate.signal} {sign} {gate.threshold:g}",
        )
    before, after = (
        comparison.values[system][comparison.headline] for system in comparison.systems
    )
    return study_gates(comparison.headline, comparison.signals, before, after, own)
