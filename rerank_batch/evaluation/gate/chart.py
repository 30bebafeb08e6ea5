"""A gate study as drawings, one per signal on one scale: lines in a box of 1000 x `HEIGHT`."""

from collections.abc import Iterable
from dataclasses import dataclass

from rerank_batch.evaluation.gate.study import TOLERANCE, GateCurve, GatePoint, GateStudy
from rerank_batch.evaluation.readable import digits_of, number_text, round_edges

HEIGHT = 140.0
_LEVELS = 5


@dataclass(frozen=True)
class Level:
    """A value of the measure, and where it lies from the top of the box."""

    y: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point of the curve: ``x`` in percent of the width, ``y`` from the top."""

    of: GatePoint
    x: float
    y: float

    @property
    def anchor(self) -> str:
        """On which side of the mark its text stays inside the picture."""
        return "start" if self.x < 20 else "end" if self.x > 80 else "middle"


@dataclass(frozen=True)
class GatePanel:
    """One signal: its ``line``, that of the ``bound``, and the straight one of skipping at random.

    ``area`` is what lies between the line and its bound.
    """

    curve: GateCurve
    line: str
    bound: str
    area: str
    at_random: str
    marks: tuple[Mark, ...]
    safe: Mark | None
    own: Mark | None


@dataclass(frozen=True)
class GateView:
    """The panels of a study and the levels that all of them share."""

    study: GateStudy
    panels: tuple[GatePanel, ...]
    levels: tuple[Level, ...]

    @property
    def tolerance(self) -> float:
        """The loss up to which a point counts as safe."""
        return TOLERANCE

    def text(self, loss: float) -> str:
        """A loss in four decimals."""
        return number_text(loss, 4)


def gate_view(study: GateStudy) -> GateView:
    """The curves of all signals, from the least bound of any of them to the greatest value."""
    points = [point for curve in study.curves for point in curve.points]
    values = [study.retrieval, study.reranked]
    values += [value for point in points for value in (point.value, _least(study, point))]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.01, high + 0.01
    levels = round_edges(low, high, _LEVELS)
    low, high = levels[0], levels[-1]

    def y(value: float) -> float:
        return HEIGHT * (high - value) / (high - low)

    def mark(point: GatePoint) -> Mark:
        return Mark(point, 100 * point.skipped, y(point.value))

    def panel(curve: GateCurve) -> GatePanel:
        there = [(1000 * point.skipped, y(point.value)) for point in curve.points]
        least = [(1000 * point.skipped, y(_least(study, point))) for point in curve.points]
        return GatePanel(
            curve,
            line=_path(there),
            bound=_path(least),
            area=f"{_path([*there, *reversed(least)])}z",
            at_random=_path([(0.0, y(study.reranked)), (1000.0, y(study.retrieval))]),
            marks=tuple(map(mark, curve.points)),
            safe=mark(curve.safe) if curve.safe.skipped else None,
            own=mark(curve.own) if curve.own else None,
        )

    digits = digits_of(levels)
    return GateView(
        study,
        tuple(map(panel, study.curves)),
        tuple(Level(y(level), number_text(level, digits)) for level in levels),
    )


def _least(study: GateStudy, point: GatePoint) -> float:
    return study.reranked - point.bound


def _path(places: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
