"""The depth study as a drawing: where the points of the curve lie, in percent and in pixels.

Depths stand at equal distances, because each is about twice the one before.
"""

from dataclasses import dataclass

from rerank_batch.evaluation.depth.study import DepthRow, DepthStudy

HEIGHT = 160.0


@dataclass(frozen=True)
class Point:
    """A depth: ``x`` in percent of the width, ``y`` from the top in a box of `HEIGHT`."""

    row: DepthRow
    value: float
    x: float
    y: float

    @property
    def anchor(self) -> str:
        """On which side of the point its texts stay inside the picture."""
        return "start" if self.x == 0 else "end" if self.x == 100 else "middle"


@dataclass(frozen=True)
class DepthCurve:
    """The points, and the line through them in a box of 1000 x `HEIGHT`."""

    points: tuple[Point, ...]
    knee: Point
    line: str


def depth_curve(study: DepthStudy) -> DepthCurve:
    """The headline measure over the depths, as high as the box from its least value to its best."""
    values = [row.values[study.headline] for row in study.rows]
    low, span = min(values), max(values) - min(values) or 1.0
    points = tuple(
        Point(row, value, 100 * number / (len(values) - 1), HEIGHT * (1 - (value - low) / span))
        for number, (row, value) in enumerate(zip(study.rows, values, strict=True))
    )
    line = "L".join(f"{10 * point.x:.1f} {point.y:.1f}" for point in points)
    knee = next(point for point in points if point.row == study.knee)
    return DepthCurve(points, knee, f"M{line}")
