"""Agreement of two assessors: kappa against its definition, its interval against many draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.labels.judge.agreement import (
    agreement,
    between_opinions,
    in_words,
    with_judgements,
)

grade = st.integers(0, 3)
pairs = st.lists(st.tuples(grade, grade), min_size=2, max_size=60)


def kappa_of(pairs, distance) -> float:
    """1 - observed / expected disagreement, pair by pair, as Cohen defines it."""
    observed = sum(distance(a, b) for a, b in pairs) / len(pairs)
    expected = sum(distance(a, b) for a, _ in pairs for _, b in pairs) / len(pairs) ** 2
    return 1 - observed / expected


@given(pairs)
def test_kappa_is_what_its_definition_says(pairs):
    found = between_opinions(pairs)
    assert (found.pairs, found.alike) == (len(pairs), sum(a == b for a, b in pairs))
    firsts, seconds = (set(side) for side in zip(*pairs, strict=True))
    if len(firsts) == 1 or len(seconds) == 1:
        assert found.kappa is None and "says nothing" in in_words(found.to_json())
        return
    assert found.kappa == pytest.approx(kappa_of(pairs, lambda a, b: (a - b) ** 2), abs=1e-9)
    if found.interval is not None:
        assert -1 <= found.interval[0] <= found.kappa <= found.interval[1] <= 1
    plain = agreement(np.array(found.table), "", weighted=False)
    assert plain.kappa == pytest.approx(kappa_of(pairs, lambda a, b: a != b), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(pairs)
def test_another_library_finds_the_same(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    if (found := between_opinions(pairs)).kappa is not None:
        sides = zip(*pairs, strict=True)
        expected = metrics.cohen_kappa_score(*sides, weights="quadratic", labels=range(4))
        assert found.kappa == pytest.approx(expected, abs=1e-9)


def test_assessors_who_agree_have_1_and_those_who_know_nothing_of_each_other_0():
    same = between_opinions([(n % 4, n % 4) for n in range(20)])
    assert (same.kappa, same.interval) == (1, None), "no disagreement: nothing to estimate from"
    assert in_words(same.to_json()) == "kappa 1.00, 20 of 20 pairs alike"
    strangers = between_opinions([(a, b) for a in range(4) for b in range(4)] * 10)
    assert strangers.kappa == pytest.approx(0)
    assert strangers.interval[0] < 0 < strangers.interval[1]
    opposed = between_opinions([(n % 4, 3 - n % 4) for n in range(20)])
    assert opposed.kappa == pytest.approx(-1)
    none = between_opinions([])
    assert (none.pairs, none.kappa, none.interval) == (0, None, None)


def test_the_interval_holds_the_true_kappa_nineteen_times_in_twenty():
    shares = np.full((4, 4), 0.02) + np.diag([0.3, 0.2, 0.1, 0.08])
    shares /= shares.sum()
    squares = np.subtract.outer(range(4), range(4)) ** 2
    expected = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    truth = 1 - (squares * shares).sum() / (squares * expected).sum()
    rng = np.random.default_rng(0)
    intervals = [
        agreement(rng.multinomial(300, shares.ravel()).reshape(4, 4), "").interval
        for _ in range(250)
    ]
    held = sum(low <= truth <= high for low, high in intervals)
    assert 0.91 < held / 250 < 0.985


def test_judgements_of_the_same_scale_are_compared_grade_by_grade():
    found = with_judgements([(0, 0), (3, 2), (1, 3), (2, 2)], {"q": {"a": 0, "b": 3}}, 1)
    assert "quadratic" in found.how and len(found.table) == 4
    assert found.table[3][2] == found.table[1][3] == 1


@pytest.mark.parametrize(
    ("positive", "grades", "theirs"),
    [(1, (0, 1), 1), (2, (0, 1), 1), (2, (0, 2), 2), (2, (0, 5), 2), (3, (-2, 3), 3)],
)
def test_judgements_of_another_scale_are_compared_by_who_is_relevant(positive, grades, theirs):
    """The judge from the grade of a positive on; of 0 and 1 that is 1 whatever a positive is."""
    low, high = grades
    qrels = {"q": {"a": low, "b": high}}
    common = [(3, high), (positive, high), (positive - 1, low), (positive, low)]
    found = with_judgements(common, qrels, positive)
    assert found.table == ((1, 0), (1, 2))
    assert f"from {low} to {high}: the judge from grade {positive}, the judgements from {theirs};" \
        in found.how  # fmt: skip
    assert found.kappa == pytest.approx(0.5)
    assert found.grades == ("not relevant", "relevant")
