"""Segments: every judged query is counted, and their means make up those of the whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.evaluation.segments.groupings import (
    MOST,
    NOT_IN_LOG,
    NULL,
    REJECTED,
    ColumnValues,
    Floats,
    Grouping,
    by_column,
    by_frequency,
    by_length,
    frequency_bounds,
    weight_text,
)
from rerank_batch.evaluation.segments.study import (
    FEWEST,
    QuerySegment,
    SegmentGroup,
    study_segments,
    weighted_mean,
)
from rerank_batch.evaluation.significance import bootstrap_interval

BASE, NEW = "retrieval", "reranked"


@dataclass(frozen=True)
class Systems:
    """A comparison of two systems in two measures; the second is ten times the first."""

    texts: Sequence[str]
    weights: Floats
    before: Floats
    after: Floats
    measures: tuple[str, ...] = ("nDCG@10", "NumRet")
    systems: tuple[str, ...] = (BASE, NEW)
    values: dict[str, dict[str, Floats]] = field(init=False)

    def __post_init__(self) -> None:
        both = {BASE: self.before, NEW: self.after}
        values = {
            name: dict(zip(self.measures, (v, 10 * v), strict=True)) for name, v in both.items()
        }
        object.__setattr__(self, "values", values)


def column(*rows: tuple[int, str | None, float]) -> ColumnValues:
    """Entries of (query, value, weight)."""
    values = tuple(dict.fromkeys(value for _, value, _ in rows))
    return ColumnValues(
        values,
        np.array([query for query, _, _ in rows], np.int64),
        np.array([values.index(value) for _, value, _ in rows], np.int64),
        np.array([weight for _, _, weight in rows], np.float64),
    )


def members(grouping: Grouping) -> dict[str, dict[int, float]]:
    """Segment -> query -> weight there."""
    found: dict[str, dict[int, float]] = {}
    for query, place, weight in zip(grouping.query, grouping.segment, grouping.weight, strict=True):
        segment = found.setdefault(grouping.names[place], {})
        assert query not in segment
        segment[int(query)] = float(weight)
    return found


def names(group: SegmentGroup) -> list[str]:
    return [segment.name for segment in group.segments]


# --- the whole and its parts -----------------------------------------------------------------

SHARES = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6309, 1.0])
QUERIES = st.lists(
    st.tuples(
        st.integers(0, 12).map(lambda words: " ".join(["word"] * words)),
        st.one_of(st.integers(1, 5).map(float), st.floats(0.01, 1e6)),
        SHARES,
        SHARES,
        st.sampled_from(["a", "b", None]),
    ),
    min_size=1,
    max_size=9,  # fewer than get an interval, which takes its time
)


@given(QUERIES, st.lists(st.floats(0.01, 1e6), max_size=9))
@settings(max_examples=60, deadline=None)
def test_segments_that_share_no_query_make_up_the_whole(
    queries: list[tuple[str, float, float, float, str | None]], unjudged: list[float]
) -> None:
    texts, weights, before, after, values = zip(*queries, strict=True)
    systems = Systems(texts, *(np.array(each) for each in (weights, before, after)))
    run_weights = np.array([*(w for w, t in zip(weights, texts, strict=True) if t), *unjudged])
    by_value = column(*((place, value, weights[place]) for place, value in enumerate(values)))
    study = study_segments(systems, run_weights, {"channel": by_value})
    whole = study.overall
    assert whole.weight == pytest.approx(math.fsum(weights))
    assert [group.name for group in study.groups] == ["length", "frequency", "channel"]
    for group in study.groups:
        if not group.segments:
            assert group.name == "frequency"
            assert len(set(run_weights)) < 2
            continue
        assert len(set(names(group))) == len(group.segments)
        assert sum(segment.queries for segment in group.segments) == len(texts)
        assert sum(segment.weight for segment in group.segments) == pytest.approx(whole.weight)
        for system in systems.systems:
            for measure in systems.measures:
                plain = sum(s.queries * s.means[system][measure] for s in group.segments)
                weighted = sum(s.weight * s.weighted_means[system][measure] for s in group.segments)
                assert plain / len(texts) == pytest.approx(whole.means[system][measure])
                assert weighted / whole.weight == pytest.approx(
                    whole.weighted_means[system][measure]
                )
        gains = sum(s.queries * s.gains[NEW].difference for s in group.segments)
        assert gains / len(texts) == pytest.approx(whole.gains[NEW].difference)
        assert all(segment.queries > 0 for segment in group.segments)
        assert (REJECTED in names(group)) == ("" in texts)


def test_numbers_of_a_segment_are_those_computed_by_hand() -> None:
    systems = Systems(
        ["one", "two words", "two more", ""],
        np.array([1.0, 3.0, 1.0, 2.0]),
        np.array([0.5, 0.2, 0.6, 0.0]),
        np.array([1.0, 0.4, 0.6, 0.0]),
    )
    study = study_segments(systems, np.array([1.0, 3.0, 1.0]))
    assert (study.headline, study.baseline, study.best) == ("nDCG@10", BASE, NEW)
    one, two, rejected = study.groups[0].segments
    assert (one.name, two.name, rejected.name) == ("1 word", "2 words", REJECTED)
    assert (two.queries, two.weight) == (2, 4.0)
    assert two.means == {
        BASE: {"nDCG@10": pytest.approx(0.4), "NumRet": pytest.approx(4.0)},
        NEW: {"nDCG@10": pytest.approx(0.5), "NumRet": pytest.approx(5.0)},
    }
    assert two.weighted_means[BASE]["nDCG@10"] == pytest.approx((0.6 + 0.6) / 4)
    assert two.weighted_means[NEW]["nDCG@10"] == pytest.approx((1.2 + 0.6) / 4)
    assert two.gains[NEW].difference == pytest.approx(0.1)
    assert study.overall.queries == 4
    assert study.overall.weighted_means[NEW]["nDCG@10"] == pytest.approx((1 + 1.2 + 0.6) / 7)


def test_the_best_system_is_that_of_the_highest_mean_but_never_the_baseline() -> None:
    flat = np.zeros(3)
    base = Systems(["a"] * 3, np.ones(3), flat + 0.9, flat + 0.2)
    assert study_segments(base, np.ones(3)).best == NEW
    alone = Systems(["a"] * 3, np.ones(3), flat, flat, systems=(BASE,))
    study = study_segments(alone, np.ones(3))
    assert study.best is None
    assert study.overall.gains == {}


@pytest.mark.parametrize("queries", [FEWEST - 1, FEWEST])
def test_only_a_segment_of_enough_queries_has_an_interval(queries: int) -> None:
    before = np.linspace(0.1, 0.5, queries)
    after = before + np.linspace(-0.1, 0.3, queries)
    systems = Systems(["word"] * queries, np.ones(queries), before, after)
    gain = study_segments(systems, np.ones(queries)).groups[0].segments[0].gains[NEW]
    assert gain.difference == pytest.approx(0.1)
    assert gain.interval == (bootstrap_interval(after - before) if queries == FEWEST else None)
    assert queries < FEWEST or gain.interval is not None


@pytest.mark.parametrize(
    ("weight", "text"),
    [(7, "7"), (0.25, "0.25"), (12.3456, "12.3"), (1234.5, "1,234"), (7654321.0, "7,654,321")],
)
def test_a_weight_is_read_as_a_number_of_rows(weight: float, text: str) -> None:
    assert weight_text(weight) == text


def test_a_mean_over_nothing_that_weighs_is_zero() -> None:
    assert weighted_mean(np.array([0.0, 0.0]), np.zeros(2)) == 0.0
    assert weighted_mean(np.array([1.0, 0.5]), np.array([3.0, 1.0])) == 0.875


# --- length ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "segment"),
    [
        (0, REJECTED),
        (1, "1 word"),
        (2, "2 words"),
        (3, "3-4 words"),
        (4, "3-4 words"),
        (5, "5-7 words"),
        (7, "5-7 words"),
        (8, "8+ words"),
        (90, "8+ words"),
    ],
)
def test_length_is_counted_in_words(words: int, segment: str) -> None:
    grouping = by_length(["  ".join(["x"] * words)], np.array([2.5]))
    assert members(grouping) == {segment: {0: 2.5}}


# --- frequency -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "bounds"),
    [
        # Of 30: the 10 end at 10, the 5s lie around 15, the 4 around 22.
        ([10, 5, 5, 4, 3, 2, 1], (10, 4)),
        # Of 60: the 10s lie around 10, the 6s around 29, the 4s around 48.
        ([10, 10, 6, 6, 6, 4, 4, 4, 4, 4, 2], (10, 4)),
        # The most frequent are the head and the rarest the tail, however much they are.
        ([97, 1, 1, 1], (97, 1)),
        ([10] + [1] * 990, (10, 1)),
        ([2, 2, 1], (2, 1)),
        ([0.5, 0.25], (0.5, 0.25)),
        # Of 18: the 2s lie around 6, on the border, so they go to the more frequent side.
        ([4, 2, 2] + [1] * 10, (2, 1)),
        ([7], None),
        ([3, 3, 3], None),
        ([], None),
    ],
)
def test_head_and_tail_are_thirds_of_the_traffic_and_ties_stay_together(
    weights: list[float], bounds: tuple[float, float] | None
) -> None:
    for order in (weights, weights[::-1]):
        assert frequency_bounds(np.array(order, dtype=float)) == bounds


def test_judged_queries_are_placed_by_the_traffic_of_the_whole_run() -> None:
    run = np.array([10.0, 5, 5, 4, 3, 2, 1])
    judged = np.array([4.0, 10, 5, 1, 2])
    grouping = by_frequency(["a", "b", "c", "d", ""], judged, run)
    assert members(grouping) == {
        "head": {1: 10.0},
        "torso": {2: 5.0},
        "tail": {0: 4.0, 3: 1.0},
        REJECTED: {4: 2.0},
    }
    assert "7 queries of this run" in grouping.definition
    assert "weight 10 or more" in grouping.definition
    assert "weight 4 or less" in grouping.definition


def test_queries_that_are_asked_equally_often_have_no_head() -> None:
    grouping = by_frequency(["a", "b"], np.ones(2), np.ones(1234))
    assert grouping.names == ()
    assert grouping.definition == (
        "No head and no tail: the 1,234 queries of this run are asked equally often."
    )
    study = study_segments(Systems(["a"], np.ones(1), np.ones(1), np.ones(1)), np.ones(1))
    assert study.groups[1].segments == ()


@given(st.lists(st.floats(0.01, 1e9), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_more_frequent_query_is_never_further_down(weights: list[float]) -> None:
    grouping = by_frequency(["x"] * len(weights), np.array(weights), np.array(weights))
    if len(set(weights)) == 1:
        assert not grouping.names
        return
    place = {q: grouping.names.index(s) for s, found in members(grouping).items() for q in found}
    assert len(place) == len(weights)
    for one, weight in enumerate(weights):
        assert all(place[one] <= place[o] for o, less in enumerate(weights) if less <= weight)
    assert {0, 2} <= set(place.values())


# --- columns of the log ----------------------------------------------------------------------


def test_a_query_of_two_values_counts_in_both_with_the_weight_it_has_there() -> None:
    found = column((0, "web", 3.0), (0, "app", 1.0), (1, "web", 2.0), (2, None, 4.0))
    texts = ["a", "b", "c", "d", ""]
    grouping = by_column("channel", texts, np.array([4.0, 2.0, 4.0, 1.0, 0.0]), found)
    assert members(grouping) == {
        "app": {0: 1.0},
        "web": {0: 3.0, 1: 2.0},
        NULL: {2: 4.0},
        NOT_IN_LOG: {3: 1.0},
        REJECTED: {4: 0.0},
    }


def test_the_largest_values_are_shown_and_the_others_counted_together() -> None:
    """Value v is asked by v queries; query 0 asks all of them, once each."""
    values = MOST + 3
    found = column(*((query, f"{v}", 1.0) for v in range(1, values + 1) for query in range(v)))
    grouping = by_column("bucket", ["x"] * values, np.ones(values), found)
    got = members(grouping)
    assert list(grouping.names)[: MOST + 1] == [*map(str, range(4, values + 1)), "other (3 values)"]
    assert {name: len(found) for name, found in got.items()} == {
        **{str(v): v for v in range(4, values + 1)},
        "other (3 values)": 3,
    }
    assert got["other (3 values)"] == {0: 3.0, 1: 2.0, 2: 1.0}


def test_a_single_further_value_is_shown_and_not_hidden_as_other() -> None:
    found = column(*((0, f"{v:02}", 1.0) for v in range(MOST + 1)))
    grouping = by_column("c", ["x"], np.array([13.0]), found)
    assert set(members(grouping)) == {f"{v:02}" for v in range(MOST + 1)}


def test_values_stand_in_the_order_of_numbers_or_of_texts() -> None:
    found = column((0, "10", 1.0), (0, "9", 1.0), (0, "-1", 1.0), (0, None, 1.0))
    assert by_column("c", ["x"], np.ones(1), found).names[:3] == ("-1", "9", "10")
    found = column((0, "b", 1.0), (0, "10", 1.0), (0, "9", 1.0), (1, "unused", 1.0))
    names = by_column("c", ["x", ""], np.ones(2), found).names
    assert names[:4] == ("10", "9", "b", "other (0 values)")


def test_a_log_that_holds_none_of_the_queries_is_said() -> None:
    grouping = by_column("c", ["x", ""], np.array([2.0, 1.0]), column())
    assert members(grouping) == {NOT_IN_LOG: {0: 2.0}, REJECTED: {1: 1.0}}


def test_segments_without_a_query_are_not_listed() -> None:
    systems = Systems(["x"], np.ones(1), np.ones(1), np.ones(1))
    study = study_segments(systems, np.ones(1), {"c": column((0, "v", 1.0))})
    segment: QuerySegment = study.groups[2].segments[0]
    assert names(study.groups[2]) == ["v"]
    assert (segment.queries, segment.weight) == (1, 1.0)
