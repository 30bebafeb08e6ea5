"""What a gate trades: the share of queries that it spares the reranker, and what that loses.

For each signal of the retrieval scores the queries are taken from the surest on: those keep the
order of retrieval, the others the reranker's. Arrays come in, one value per query; what a signal is
and where a run lives is not known here. Choosing a threshold takes more than looking at this curve:
see `gate.threshold`, whose bound is drawn here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_batch.evaluation.gate.threshold import upper_bound
from rerank_batch.evaluation.readable import percent
from rerank_batch.remarks import NotKnown
from rerank_batch.schema import JsonObject

FEWEST = 20
"""Of fewer judged queries nothing can be told, as in `gate.threshold`."""

STEPS = 20
"""Shares of the queries that are tried, beside none at all."""

CONFIDENCE = 0.95
TOLERANCE = 0.005
"""The loss of the headline measure for which the words tell how much can be skipped."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OwnGate:
    """The gate of a configuration: its signal, its threshold as sureness, and both in words."""

    signal: str
    sureness: float
    text: str


@dataclass(frozen=True)
class GatePoint:
    """Where the surest ``skipped`` share of the queries keeps the order of retrieval.

    ``value`` is the mean of the measure then, ``loss`` by how much that is under the reranker's,
    ``bound`` the upper end of the one-sided 95 % interval of the loss, of this point alone.
    """

    skipped: float
    value: float
    loss: float
    bound: float


@dataclass(frozen=True)
class GateCurve:
    """The points of one signal, from no query to every query; ``own`` is where the gate stands."""

    signal: str
    points: tuple[GatePoint, ...]
    own: GatePoint | None = None

    @property
    def safe(self) -> GatePoint:
        """The last point up to which every bound keeps within `TOLERANCE`; at least the first."""
        kept = self.points[0]
        for point in self.points[1:]:
            if point.bound > TOLERANCE:
                break
            kept = point
        return kept

    def to_json(self) -> JsonObject:
        """The curve as JSON values."""
        return {
            "safe": vars(self.safe),
            "own": vars(self.own) if self.own else None,
            "points": [vars(point) for point in self.points],
        }


@dataclass(frozen=True)
class GateStudy:
    """The curves of all signals over the same queries, and the means at both ends of each."""

    measure: str
    queries: int
    retrieval: float
    reranked: float
    curves: tuple[GateCurve, ...]
    own: OwnGate | None = None

    def at_random(self, share: float) -> float:
        """The mean where so many queries are skipped whatever their scores: what a signal beats."""
        return self.reranked + share * (self.retrieval - self.reranked)

    def to_json(self) -> JsonObject:
        """The trade-offs as JSON values."""
        return {
            "measure": self.measure,
            "queries": self.queries,
            "retrieval": self.retrieval,
            "reranked": self.reranked,
            "tolerance": TOLERANCE,
            "in_words": list(self.in_words()),
            "own": self.own.text if self.own else None,
            "signals": {curve.signal: curve.to_json() for curve in self.curves},
        }

    def in_words(self) -> tuple[str, ...]:
        """How much can be skipped, and what the configuration's own gate would do."""
        best = max(self.curves, key=lambda curve: curve.safe.skipped)
        safe, name = best.safe, self.measure
        if not safe.skipped:
            sentence = (
                f"On these {self.queries:,} queries no signal can skip {percent(1 / STEPS)} of "
                f"them and be sure to lose less than {TOLERANCE:g} of {name}."
            )
        elif safe.skipped == 1:
            sentence = (
                f"Every query can keep the order of retrieval: {name} is {safe.value:.4f} instead "
                f"of {self.reranked:.4f}, and with 95 % confidence {_lost(safe)}."
            )
        else:
            sentence = (
                f"By {best.signal} the surest {percent(safe.skipped)} of the queries can keep the "
                f"order of retrieval: {name} is {safe.value:.4f} instead of {self.reranked:.4f}, "
                f"and with 95 % confidence {_lost(safe)}. As many drawn at random give "
                f"{self.at_random(safe.skipped):.4f}."
            )
        own = next((curve.own for curve in self.curves if curve.own), None)
        if own is None or self.own is None:
            return (sentence,)
        return (
            sentence,
            f"The gate of the configuration ({self.own.text}) would skip {percent(own.skipped)}: "
            f"{name} would be {own.value:.4f}, and with 95 % confidence {_lost(own)}.",
        )


def study_gates(
    measure: str,
    sureness: Mapping[str, Floats],
    retrieval: Floats,
    reranked: Floats,
    own: OwnGate | None = None,
) -> GateStudy | NotKnown:
    """Trade-offs of every signal; ``retrieval`` and ``reranked`` are the measure per query, [n].

    ``sureness`` is, by signal, how sure retrieval is of each of the same queries, [n], higher is
    surer; minus infinity for a query that no gate can skip before all others are.
    """
    count = len(retrieval)
    if count < FEWEST:
        return NotKnown(f"it has {count} judged queries, and {FEWEST} at least are needed")
    gains = reranked - retrieval
    after = float(reranked.mean())
    curves = []
    for signal, sure in sureness.items():
        masks = [np.zeros(count, bool), *(_surest(sure, step) for step in range(1, STEPS))]
        masks.append(np.ones(count, bool))
        distinct = {int(mask.sum()): mask for mask in masks}  # equal sureness makes some the same
        points = tuple(_point(distinct[skipped], gains, after) for skipped in sorted(distinct))
        stands = None
        if own and own.signal == signal:
            stands = _point(sure >= own.sureness, gains, after)
        curves.append(GateCurve(signal, points, stands))
    return GateStudy(measure, count, float(retrieval.mean()), after, tuple(curves), own)


def _surest(sure: Floats, step: int) -> NDArray[np.bool_]:
    """The surest ``step`` of `STEPS` parts, and whoever is as sure as the last of them."""
    least = -((step - STEPS) * (len(sure) - 1) // STEPS)  # rounded up, exactly
    skipped: NDArray[np.bool_] = sure >= np.sort(sure)[least]
    return skipped


def _point(skipped: NDArray[np.bool_], gains: Floats, after: float) -> GatePoint:
    losses = np.where(skipped, gains, 0.0)
    loss = float(losses.mean())
    return GatePoint(float(skipped.mean()), after - loss, loss, upper_bound(losses, CONFIDENCE))


def _lost(point: GatePoint) -> str:
    return f"at most {point.bound:.4f} is lost" if point.bound > 0 else "nothing is lost"
