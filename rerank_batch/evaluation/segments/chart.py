"""The segments as drawings: two bars for each of a grouping, the baseline and the best system.

Widths are in percent of the picture, heights in pixels: bars follow the width of the screen while
their text stays readable on a phone.
"""

from dataclasses import dataclass

from rerank_batch.evaluation.segments.study import QuerySegment, SegmentGroup, SegmentStudy

LONGEST_LABEL = 28
"""Characters of a segment's name above its bars; the table beside the drawing has all of them."""

_BELOW_LABEL, _PITCH, _GAP = 21.5, 16.0, 9.0


@dataclass(frozen=True)
class MeanBar:
    """A mean of the headline measure: ``style`` before or after, ``width`` in percent of all."""

    style: str
    value: float
    width: float
    y: float
    height: float = 14.0


@dataclass(frozen=True)
class SegmentBars:
    """A segment's label and bars, in a row that begins ``y`` pixels from the top."""

    segment: QuerySegment
    label: str
    y: float
    bars: tuple[MeanBar, ...]


@dataclass(frozen=True)
class SegmentChart:
    """A grouping's segments: ``height`` in pixels, ``scale`` the value of the full width."""

    group: SegmentGroup
    rows: tuple[SegmentBars, ...]
    height: float
    scale: float


def segment_charts(study: SegmentStudy) -> tuple[SegmentChart, ...]:
    """One drawing for every grouping that has several segments, all on one scale from 0."""
    systems = [("before", study.baseline), *([("after", study.best)] if study.best else [])]
    groups = [group for group in study.groups if len(group.segments) > 1]
    drawn = [segment for group in groups for segment in group.segments]
    means = [segment.means[name][study.headline] for segment in drawn for _, name in systems]
    scale = max([1.0, *means])  # a count such as NumRet is not between 0 and 1
    row_height = _BELOW_LABEL + len(systems) * _PITCH + _GAP
    charts = []
    for group in groups:
        rows = []
        for place, segment in enumerate(group.segments):
            bars = []
            for number, (style, name) in enumerate(systems):
                value = segment.means[name][study.headline]
                width = 100 * max(value, 0.0) / scale
                bars.append(MeanBar(style, value, width, _BELOW_LABEL + number * _PITCH))
            label = _label(segment.name)
            rows.append(SegmentBars(segment, label, place * row_height, tuple(bars)))
        charts.append(SegmentChart(group, tuple(rows), len(rows) * row_height, scale))
    return tuple(charts)


def _label(name: str) -> str:
    if len(name) <= LONGEST_LABEL:
        return name
    return name[: LONGEST_LABEL - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
