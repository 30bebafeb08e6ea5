"""A score study as two drawings: where things lie, in percent of the width and in pixels.

Bars stand in percent and not in a scaled box, so that hatching keeps its shape on every screen.
"""

from dataclasses import dataclass

from rerank_batch.evaluation.readable import digits_of, number_text, round_edges
from rerank_batch.evaluation.scores.study import ScoreClass, ScoreGroup, ScoreStudy

ROW = 60.0
"""Height of the tallest bar of all, in pixels."""

HEIGHT = 160.0
_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis: ``at`` in percent of the width, or in pixels from the top."""

    at: float
    text: str


@dataclass(frozen=True)
class HistogramBar:
    """``x`` and ``width`` in percent, ``height`` in pixels."""

    x: float
    width: float
    height: float


@dataclass(frozen=True)
class HistogramRow:
    """The bars of one kind of document; ``median`` in percent."""

    of: ScoreClass
    bars: tuple[HistogramBar, ...]
    median: Tick | None

    @property
    def anchor(self) -> str:
        """On which side of the median its text stays inside the picture."""
        if self.median is None or 15 <= self.median.at <= 85:
            return "middle"
        return "start" if self.median.at < 15 else "end"


@dataclass(frozen=True)
class GroupPoint:
    """A group's share, interval and fitted probability, from the top in a box of `HEIGHT`; ``x`` in
    percent."""

    of: ScoreGroup
    x: float
    y: float
    low: float
    high: float
    fitted: float | None
    from_score: str
    to_score: str


@dataclass(frozen=True)
class BinRow:
    """A row of the table of the histogram."""

    low: str
    high: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class ScoreView:
    """The drawings of a study, and the bins as text."""

    study: ScoreStudy
    rows: tuple[HistogramRow, ...]
    ticks: tuple[Tick, ...]
    tallest: float
    bins: tuple[BinRow, ...]
    points: tuple[GroupPoint, ...]
    levels: tuple[Tick, ...]


def score_view(study: ScoreStudy) -> ScoreView:
    """Histograms one below the other on one scale, and the share relevant from group to group.

    Kinds without any document have no row.
    """
    classes = tuple(each for each in study.classes if each.documents)
    tallest = max((share for each in classes for share in each.shares), default=0.0) or 1.0
    levels = round_edges(0.0, _greatest_share(study), 3)
    top = min(levels[-1], 1.0)
    count = max(len(study.groups), 1)
    digits = digits_of(study.edges)
    edges = [number_text(edge, digits) for edge in study.edges]
    return ScoreView(
        study=study,
        rows=tuple(_row(study, each, tallest) for each in classes),
        ticks=_ticks(study),
        tallest=tallest,
        bins=tuple(
            BinRow(
                edges[number],
                edges[number + 1],
                tuple(each.counts[number] for each in classes),
                tuple(each.shares[number] for each in classes),
            )
            for number in range(len(edges) - 1)
        ),
        points=tuple(
            GroupPoint(
                group,
                100 * (number + 0.5) / count,
                HEIGHT * (1 - group.share / top),
                HEIGHT * (1 - group.interval[0] / top),
                HEIGHT * (1 - group.interval[1] / top),
                None if group.fitted is None else HEIGHT * (1 - group.fitted / top),
                study.text(group.low),
                study.text(group.high),
            )
            for number, group in enumerate(study.groups)
        ),
        levels=tuple(
            Tick(HEIGHT * (1 - level / top), f"{100 * level:g} %") for level in levels if level <= 1
        ),
    )


def _greatest_share(study: ScoreStudy) -> float:
    return max((max(each.interval[1], each.fitted or 0.0) for each in study.groups), default=1.0)


def _row(study: ScoreStudy, of: ScoreClass, tallest: float) -> HistogramRow:
    width = 100 / (len(study.edges) - 1)
    bars = tuple(
        HistogramBar(width * number, width, ROW * share / tallest)
        for number, share in enumerate(of.shares)
        if share
    )
    median = None if of.median is None else Tick(_at(study, of.median), study.text(of.median))
    return HistogramRow(of, bars, median)


def _ticks(study: ScoreStudy) -> tuple[Tick, ...]:
    rounded = round_edges(study.edges[0], study.edges[-1], _TICKS)
    digits = digits_of(rounded)
    inside = [tick for tick in rounded if study.edges[0] <= tick <= study.edges[-1]]
    return tuple(Tick(_at(study, tick), number_text(tick, digits)) for tick in inside)


def _at(study: ScoreStudy, score: float) -> float:
    low, high = study.edges[0], study.edges[-1]
    return 100 * (score - low) / (high - low)
