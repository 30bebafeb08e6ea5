"""From where on retrieval is sure enough: a threshold that keeps the loss of skipping in bounds.

The loss of a query is what the reranker would have gained on it, if it is skipped, else 0. Of ever
lower thresholds the last one is taken whose mean loss, with a one-sided confidence bound on top,
stays under the limit. They are tested in a fixed order and the first that fails ends it, so that
trying many costs no confidence (Angelopoulos et al., "Learn then Test", 2021,
https://arxiv.org/abs/2110.01052). The bound is Student's t, which is approximate: so the same rule
is also learned on four fifths of the queries and measured on the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

_STEPS = 40
"""Thresholds that are tried: every 2.5 % more of the queries."""

_FEWEST = 20


@dataclass(frozen=True)
class HeldOutLoss:
    """What thresholds did to queries that they were not learned on.

    ``bound`` is the upper end of the one-sided confidence interval of the mean ``loss``.
    """

    skipped: float
    loss: float
    bound: float


@dataclass(frozen=True)
class LearnedThreshold:
    """A threshold on the scale of the sureness, None where none keeps the limit.

    ``skipped`` and ``loss`` are those of the queries it was learned on.
    """

    threshold: float | None
    skipped: float
    loss: float
    held_out: HeldOutLoss


def calibrate(
    sureness: Floats, gains: Floats, max_loss: float, confidence: float = 0.95, folds: int = 5
) -> LearnedThreshold | None:
    """Learn the threshold for queries of a given sureness and gain by the reranker, both [n].

    None for fewer than 20 queries, of which nothing can be learned. Folds are drawn with a fixed
    seed: the same queries give the same answer.
    """
    if len(gains) < _FEWEST:
        return None
    threshold = threshold_for(sureness, gains, max_loss, confidence)
    losses = _losses(sureness, gains, threshold)
    fold = np.random.default_rng(0).permutation(len(gains)) % folds
    held, skipped = np.zeros(len(gains)), np.zeros(len(gains), bool)
    for number in range(folds):
        here = fold == number
        learned = threshold_for(sureness[~here], gains[~here], max_loss, confidence)
        held[here] = _losses(sureness[here], gains[here], learned)
        skipped[here] = _is_skipped(sureness[here], learned)
    return LearnedThreshold(
        threshold,
        float(_is_skipped(sureness, threshold).mean()),
        float(losses.mean()),
        HeldOutLoss(float(skipped.mean()), float(held.mean()), upper_bound(held, confidence)),
    )


def threshold_for(
    sureness: Floats, gains: Floats, max_loss: float, confidence: float
) -> float | None:
    """The lowest threshold for which it and every higher one keep the limit."""
    found = None
    for share in np.arange(1, _STEPS + 1) / _STEPS:
        threshold = float(np.quantile(sureness, 1 - share, method="higher"))
        if upper_bound(_losses(sureness, gains, threshold), confidence) > max_loss:
            break
        found = threshold
    return found


def upper_bound(losses: Floats, confidence: float) -> float:
    """The upper end of the one-sided confidence interval of a mean, by Student's t."""
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    return float(losses.mean() + stats.t.ppf(confidence, len(losses) - 1) * error)


def _losses(sureness: Floats, gains: Floats, threshold: float | None) -> Floats:
    return np.where(_is_skipped(sureness, threshold), gains, 0.0)


def _is_skipped(sureness: Floats, threshold: float | None) -> NDArray[np.bool_]:
    return np.zeros(len(sureness), bool) if threshold is None else sureness >= threshold
