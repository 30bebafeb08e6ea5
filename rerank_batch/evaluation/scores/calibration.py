"""From a score to the probability that a judged document is relevant: a logistic fit, held out.

Platt, "Probabilistic Outputs for Support Vector Machines" (1999), with his targets, which keep the
fit finite where scores tell relevant documents from the others without an error. What it is worth
is measured on queries that it was not fitted on, by the expected calibration error of Naeini,
Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

FOLDS = 5
GROUPS = 10
FEWEST = 50
"""Documents of either kind from which on a fit is made."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """The probability of a score is that of the logit ``intercept`` + ``slope`` * score.

    ``error`` is its expected calibration error on queries it was not fitted on; ``error_as_is``
    that of the scores themselves, as probabilities where all lie from 0 to 1, else as logits.
    """

    slope: float
    intercept: float
    error: float
    error_as_is: float


def calibrate_scores(
    scores: Floats, relevant: NDArray[np.bool_], folds: NDArray[np.int_]
) -> tuple[Calibration, Floats] | None:
    """Fit the scores of judged documents, [n]; documents of a query are in one of the ``folds``.

    Beside the fit the probability of every document as the other folds fit it, [n]. None where
    there are fewer than `FEWEST` documents of either kind, or a fold's others are of one kind.
    """
    if min(relevant.sum(), (~relevant).sum()) < FEWEST or np.ptp(scores) == 0:
        return None
    held_out = np.empty(len(scores))
    for fold in np.unique(folds):
        here = folds == fold
        if len(np.unique(relevant[~here])) < 2:
            return None
        intercept, slope = _fit(scores[~here], relevant[~here])
        held_out[here] = expit(intercept + slope * scores[here])
    intercept, slope = _fit(scores, relevant)
    are_shares = scores.min() >= 0 and scores.max() <= 1
    return (
        Calibration(
            slope,
            intercept,
            calibration_error(held_out, relevant),
            calibration_error(scores if are_shares else expit(scores), relevant),
        ),
        held_out,
    )


def calibration_error(probabilities: Floats, relevant: NDArray[np.bool_]) -> float:
    """How far probabilities are from what happens, on average over ten groups of like size."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(GROUPS, len(order)))
    apart = [abs(float(probabilities[part].sum() - relevant[part].sum())) for part in parts]
    return sum(apart) / len(order)


def _fit(scores: Floats, relevant: NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope of the likeliest logistic curve."""
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    inputs = np.stack([np.ones(len(scores)), (scores - centre) / spread])
    hits = int(relevant.sum())
    high, low = (hits + 1) / (hits + 2), 1 / (len(scores) - hits + 2)
    targets = np.where(relevant, high, low)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = weights @ inputs
        value = np.logaddexp(0, logits) - targets * logits
        return float(value.mean()), inputs @ (expit(logits) - targets) / len(scores)

    found = minimize(loss, np.zeros(2), jac=True, method="BFGS")
    slope = float(found.x[1]) / spread
    return float(found.x[0]) - slope * centre, slope
