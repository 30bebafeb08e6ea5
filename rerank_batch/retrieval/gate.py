"""The gate: is retrieval so sure of a query that the reranker need not read it?

Sure means that a signal of the retrieval scores reaches a threshold. Which threshold costs how much
quality is learned from judged queries; see `evaluation.calibration`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

_TEMPERATURE = 0.05
"""Of the softmax behind ``entropy``: cosines are trained at a scale of 20 by sentence-transformers'
MultipleNegativesRankingLoss, so this makes them the logits they were."""


@dataclass(frozen=True)
class Gate:
    """A signal (see `config.GateConfig`) and from where on it means sure."""

    signal: str
    threshold: float

    def is_sure(self, scores: Scores) -> bool:
        """Whether a query with these retrieval scores, best first, can do without the reranker."""
        return sureness(self.signal, scores) >= sureness_of_value(self.signal, self.threshold)


def sureness(signal: str, scores: Scores) -> float:
    """The signal of one query, turned so that higher is surer; its retrieval scores best first.

    A query with fewer than two candidates has nothing to reorder: infinitely sure.
    """
    if len(scores) < 2:
        return float("inf")
    if signal == "top1":
        return float(scores[0])
    if signal == "entropy":
        return -_entropy(scores.astype(np.float64) / _TEMPERATURE)
    _, _, k = signal.partition("@")
    return float(scores[0]) - float(scores[min(int(k or 2), len(scores)) - 1])


def sureness_of_value(signal: str, value: float) -> float:
    """A value of the signal as a threshold names it, on the scale of `sureness`; and back."""
    return -value if signal == "entropy" else value


def _entropy(logits: NDArray[np.float64]) -> float:
    """Of their softmax, in nats."""
    shifted = logits - logits.max()
    total = np.exp(shifted).sum()
    return float(np.log(total) - (np.exp(shifted) * shifted).sum() / total)
