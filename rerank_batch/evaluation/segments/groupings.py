"""Which judged queries belong together: by length, by frequency, by a column of the log.

A grouping is a set of segments that answers one question:

- length: the words of the query, which are what white space parts (a text in a script without it is
  one word): 1, 2, 3-4, 5-7, 8 and more;
- frequency: head, torso and tail of the whole run's traffic, see `frequency_bounds`;
- a column of the log: a query that is asked with several values belongs to each of them, with the
  weight that it has there. The values of most judged queries are shown, the rest as one segment.

Queries that were rejected have no text and no rows that count: they are a segment of their own in
every grouping. So every judged query is in every grouping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 12
"""Values of a column that are shown by themselves."""

REJECTED = "(rejected)"
NULL = "(none)"
NOT_IN_LOG = "(not in the log)"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LENGTHS = {"1 word": 1, "2 words": 2, "3-4 words": 4, "5-7 words": 7, "8+ words": math.inf}
_HEAD, _TORSO, _TAIL = range(3)


@dataclass(frozen=True)
class ColumnValues:
    """What a column of the log holds in the rows of n queries.

    Entry i says that query ``query[i]`` has rows of total weight ``weight[i]`` with the value
    ``values[value[i]]``, where None is null. A pair of query and value has one entry.
    """

    values: tuple[str | None, ...]
    query: Ints
    value: Ints
    weight: Floats


@dataclass(frozen=True)
class Grouping:
    """Which of n queries belong to which segment: entry i puts ``query[i]`` into ``segment[i]``.

    A pair of query and segment has one entry, with the ``weight`` that the query has there. Where
    no ``names`` are given there are no segments, and ``definition`` says why.
    """

    name: str
    definition: str
    names: tuple[str, ...]
    query: Ints
    segment: Ints
    weight: Floats


def weight_text(weight: float) -> str:
    """A weight as people read it: a number of rows, or what a weight column adds up to."""
    return f"{weight:,.0f}" if weight >= 1000 or weight == round(weight) else f"{weight:.3g}"


def by_length(texts: Sequence[str], weights: Floats) -> Grouping:
    """Queries by the number of their words."""
    words = np.array([len(text.split()) for text in texts], dtype=float)
    return _exclusive(
        "length",
        "Words of the query, parted by white space.",
        tuple(_LENGTHS),
        np.searchsorted(list(_LENGTHS.values()), words),
        texts,
        weights,
    )


def by_frequency(texts: Sequence[str], weights: Floats, run_weights: Floats) -> Grouping:
    """Queries by their part of the run's traffic: head, torso, tail."""
    of_run = f"the {len(run_weights):,} queries of this run"
    bounds = frequency_bounds(run_weights)
    if bounds is None:
        definition = f"No head and no tail: {of_run} are asked equally often."
        none = np.empty(0, np.int64)
        return Grouping("frequency", definition, (), none, none, np.empty(0))
    head, tail = bounds
    least, most = weight_text(head), weight_text(tail)
    return _exclusive(
        "frequency",
        f"Parts of the traffic of {of_run}: the head is the most frequent ones that make up its "
        f"first third (weight {least} or more), the tail the rarest that make up its last "
        f"(weight {most} or less), the torso what is between. Queries of one weight stay "
        "together, so the thirds are not exact.",
        ("head", "torso", "tail"),
        np.where(weights >= head, _HEAD, np.where(weights <= tail, _TAIL, _TORSO)),
        texts,
        weights,
    )


def frequency_bounds(run_weights: Floats) -> tuple[float, float] | None:
    """The least weight of the head and the largest of the tail; None where all weights are equal.

    Queries are lined up from the most to the least frequent, those of equal weight as one. They
    belong to the third of the total weight in which the middle of theirs lies, on a border to the
    more frequent side. The most frequent are the head whatever part of the traffic they make up,
    and the rarest are the tail: half of a log may be queries that were asked once.
    """
    rising, queries = np.unique(run_weights, return_counts=True)
    if len(rising) < 2:
        return None
    frequencies, traffic = rising[::-1], (rising * queries)[::-1]
    middles, total = np.cumsum(traffic) - traffic / 2, traffic.sum()
    third = np.where(3 * middles <= total, _HEAD, np.where(3 * middles <= 2 * total, _TORSO, _TAIL))
    third[0], third[-1] = _HEAD, _TAIL
    return float(frequencies[third == _HEAD].min()), float(frequencies[third == _TAIL].max())


def by_column(name: str, texts: Sequence[str], weights: Floats, found: ColumnValues) -> Grouping:
    """Queries by the values that their rows of the log have in a column."""
    rejected = _rejected(texts)
    counts = ~rejected[found.query]
    query, value, weight = found.query[counts], found.value[counts], found.weight[counts]
    names, place_of = _shown(found.values, np.bincount(value, minlength=len(found.values)))
    unknown = ~rejected
    unknown[query] = False
    segment = [place_of[value], np.full(unknown.sum(), len(names))]
    segment += [np.full(rejected.sum(), len(names) + 1)]
    member = np.concatenate([query, np.flatnonzero(unknown), np.flatnonzero(rejected)])
    # A query with several of the values that stand together is in their segment once.
    pairs, entry = np.unique(
        np.stack([np.concatenate(segment), member]), axis=1, return_inverse=True
    )
    shares = np.concatenate([weight, weights[unknown], weights[rejected]])
    return Grouping(
        name,
        f"Column {name} of the log: a query counts under every value that it is asked with, "
        "weighted by how often it is asked with that.",
        (*names, NOT_IN_LOG, REJECTED),
        pairs[1],
        pairs[0],
        np.bincount(entry.ravel(), shares, pairs.shape[1]).astype(float),
    )


def _shown(values: Sequence[str | None], queries: Ints) -> tuple[list[str], Ints]:
    """Names of the segments of a column's values, and in which of them each value is.

    The values of most queries come first to be shown, and are in the order of the values.
    """
    present = [place for place, value in enumerate(values) if value is not None and queries[place]]
    known = _in_order(present, values)
    largest = sorted(known, key=lambda place: -queries[place])
    if len(known) > MOST + 1:  # nothing is gained by hiding a single one
        largest = largest[:MOST]
    shown = [place for place in known if place in set(largest)]
    names = [
        *(str(values[place]) for place in shown),
        f"other ({len(known) - len(shown):,} values)",
    ]
    segment = np.full(len(values), len(shown))
    segment[shown] = np.arange(len(shown))
    if None in values:
        segment[values.index(None)] = len(names)
    return [*names, NULL], segment


def _rejected(texts: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([not text for text in texts], dtype=bool)


def _exclusive(
    name: str,
    definition: str,
    names: tuple[str, ...],
    segment: Ints,
    texts: Sequence[str],
    weights: Floats,
) -> Grouping:
    """A grouping that puts every query into one segment, or to the rejected."""
    return Grouping(
        name,
        definition,
        (*names, REJECTED),
        np.arange(len(texts)),
        np.where(_rejected(texts), len(names), segment),
        np.asarray(weights, dtype=float),
    )


def _in_order(places: Sequence[int], values: Sequence[str | None]) -> list[int]:
    """Places of values in the order of the values: of numbers if all are, else of texts."""
    texts = {place: str(values[place]) for place in places}
    try:
        numbers = {place: float(text) for place, text in texts.items()}
    except ValueError:
        return sorted(places, key=lambda place: texts[place])
    return sorted(places, key=lambda place: (numbers[place], texts[place]))
