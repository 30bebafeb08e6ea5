"""Measures of the judged queries by segment, plain and weighted by how often they are asked.

A segment is a part of the judged queries; `groupings` says which queries it has. Queries that were
rejected score 0 here as everywhere.

Arrays come in; this module knows neither runs nor logs. It gives intervals of the gain but no p
values: among many segments one will always look special. The intervals are of one segment and one
comparison alone and decide nothing; `significance` decides, over all judged queries.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rerank_batch.evaluation.segments.groupings import (
    ColumnValues,
    Floats,
    Grouping,
    Ints,
    by_column,
    by_frequency,
    by_length,
    weight_text,
)
from rerank_batch.evaluation.significance import TIE, bootstrap_interval
from rerank_batch.schema import JsonObject

FEWEST = 10
"""Judged queries from which on a segment's gain gets an interval."""


Means = Mapping[str, Mapping[str, float]]


class Measured(Protocol):
    """What is read of a comparison of systems over n judged queries, the first the baseline."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Their names, the headline first."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Their names, the baseline first."""

    @property
    def texts(self) -> Sequence[str]:
        """[n], empty where the query was rejected."""

    @property
    def weights(self) -> Floats:
        """[n], how often the query is asked."""

    @property
    def values(self) -> Mapping[str, Mapping[str, Floats]]:
        """System -> measure -> [n]."""


@dataclass(frozen=True)
class Gain:
    """A system's mean gain over the baseline, and its 95 % bootstrap interval.

    There is no interval of fewer than `FEWEST` queries, or of equal gains.
    """

    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class QuerySegment:
    """How some queries fare: system -> measure -> mean, plain and weighted by frequency.

    ``gains`` has the gain in the headline measure of every system but the baseline.
    """

    name: str
    queries: int
    weight: float
    means: Means
    weighted_means: Means
    gains: Mapping[str, Gain]

    @property
    def weight_text(self) -> str:
        """The weight as people read it."""
        return weight_text(self.weight)

    def to_json(self) -> JsonObject:
        """The segment as JSON values."""
        gains = {system: vars(gain) for system, gain in self.gains.items()}
        return {**vars(self), "gains": gains}


@dataclass(frozen=True)
class SegmentGroup:
    """The segments of one grouping that have any queries; ``definition`` explains them."""

    name: str
    definition: str
    segments: tuple[QuerySegment, ...]


@dataclass(frozen=True)
class SegmentStudy:
    """Every grouping's segments, and ``overall`` the same numbers of all judged queries.

    ``systems`` begins with the baseline; ``best`` is the other with the highest plain mean of the
    headline measure over all judged queries, None where there is no other. Segments of fewer than
    ``fewest`` queries have no interval.
    """

    measures: tuple[str, ...]
    systems: tuple[str, ...]
    best: str | None
    overall: QuerySegment
    groups: tuple[SegmentGroup, ...]
    fewest: int = FEWEST

    @property
    def headline(self) -> str:
        """The measure of the gains."""
        return self.measures[0]

    @property
    def baseline(self) -> str:
        """The system that the others are compared with."""
        return self.systems[0]

    def to_json(self) -> JsonObject:
        """The study as JSON values."""
        return {
            "headline": self.headline,
            "systems": list(self.systems),
            "best": self.best,
            "fewest_for_interval": self.fewest,
            "overall": self.overall.to_json(),
            "groups": [
                {
                    "name": group.name,
                    "definition": group.definition,
                    "segments": [segment.to_json() for segment in group.segments],
                }
                for group in self.groups
            ],
        }


def study_segments(
    measured: Measured,
    run_weights: Floats,
    columns: Mapping[str, ColumnValues] | None = None,
) -> SegmentStudy:
    """The segments of the judged queries by length, by frequency and by ``columns`` of the log.

    ``run_weights`` are those of every query of the run, judged or not.
    """
    texts, weights = measured.texts, measured.weights
    groupings = [by_length(texts, weights), by_frequency(texts, weights, run_weights)]
    groupings += [by_column(name, texts, weights, found) for name, found in (columns or {}).items()]
    everything = np.arange(len(texts))
    overall = _segment(measured, "all", everything, np.asarray(weights, dtype=float))
    headline = measured.measures[0]
    others = measured.systems[1:]
    return SegmentStudy(
        measures=measured.measures,
        systems=measured.systems,
        best=max(others, key=lambda system: overall.means[system][headline], default=None),
        overall=overall,
        groups=tuple(_group(measured, grouping) for grouping in groupings),
    )


def weighted_mean(values: Floats, weights: Floats) -> float:
    """Mean of values that count as often as their weight, exactly rounded.

    0 where nothing has a weight: that is so of rejected queries alone, and they score 0.
    """
    total = math.fsum(weights)
    return math.fsum(values * weights) / total if total else 0.0


def _group(measured: Measured, grouping: Grouping) -> SegmentGroup:
    members = [np.flatnonzero(grouping.segment == place) for place in range(len(grouping.names))]
    return SegmentGroup(
        grouping.name,
        grouping.definition,
        tuple(
            _segment(measured, name, grouping.query[found], grouping.weight[found])
            for name, found in zip(grouping.names, members, strict=True)
            if len(found)
        ),
    )


def _segment(measured: Measured, name: str, queries: Ints, weights: Floats) -> QuerySegment:
    values = {
        system: {
            measure: measured.values[system][measure][queries] for measure in measured.measures
        }
        for system in measured.systems
    }
    count, headline = len(queries), measured.measures[0]
    baseline, *others = measured.systems
    return QuerySegment(
        name=name,
        queries=count,
        weight=math.fsum(weights),
        means={
            system: {measure: math.fsum(found) / count for measure, found in each.items()}
            for system, each in values.items()
        },
        weighted_means={
            system: {measure: weighted_mean(found, weights) for measure, found in each.items()}
            for system, each in values.items()
        },
        gains={
            system: _gain(values[system][headline] - values[baseline][headline])
            for system in others
        },
    )


def _gain(gains: Floats) -> Gain:
    gains = np.where(np.abs(gains) <= TIE, 0.0, gains)  # what is left of equal sums of floats
    interval = bootstrap_interval(gains) if len(gains) >= FEWEST else None
    return Gain(math.fsum(gains) / len(gains), interval)
