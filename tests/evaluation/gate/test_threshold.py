"""The gate's threshold: as many queries skipped as the limit allows, and no more."""

import numpy as np
import pytest
from scipy import stats

from rerank_batch.evaluation.gate.threshold import calibrate, threshold_for, upper_bound


def test_the_bound_is_that_of_a_one_sided_t_test() -> None:
    losses = np.random.default_rng(3).normal(0.01, 0.1, 200)
    bound = upper_bound(losses, 0.95)
    test = stats.ttest_1samp(losses, bound, alternative="less")
    assert test.pvalue == pytest.approx(0.05)


def test_queries_are_skipped_up_to_where_the_reranker_begins_to_pay() -> None:
    """The surer half gains nothing, the other half much."""
    sureness = np.linspace(0, 1, 400)
    gains = np.where(sureness < 0.5, 0.3, 0.0)
    threshold = threshold_for(sureness, gains, max_loss=0.005, confidence=0.95)
    assert threshold is not None
    assert 0.5 <= threshold < 0.53
    found = calibrate(sureness, gains, 0.005)
    assert found is not None
    assert found.threshold == threshold
    assert found.skipped == pytest.approx(0.5, abs=0.03)
    assert found.loss == 0
    assert found.held_out.skipped == pytest.approx(0.5, abs=0.05)


def test_a_larger_limit_skips_more() -> None:
    rng = np.random.default_rng(0)
    sureness = rng.uniform(size=500)
    gains = (1 - sureness) * rng.uniform(0, 0.1, 500)
    shares = [
        found.skipped
        for limit in (0.003, 0.01, 0.03)
        if (found := calibrate(sureness, gains, limit))
    ]
    assert len(shares) == 3
    assert shares[0] < shares[1] < shares[2]


def test_where_the_surest_queries_gain_most_nothing_is_skipped() -> None:
    sureness = np.linspace(0, 1, 200)
    found = calibrate(sureness, np.where(sureness > 0.97, 0.9, 0.0), 0.005)
    assert found is not None
    assert found.threshold is None
    assert (found.skipped, found.loss, found.held_out.skipped) == (0, 0, 0)


def test_gains_behind_a_failure_are_not_looked_at() -> None:
    """A lower threshold that would pass again is chance: the first failure ends it."""
    sureness = np.linspace(0, 1, 200)
    gains = np.select([sureness > 0.8, sureness > 0.7], [0.0, 0.9], -0.9)
    threshold = threshold_for(sureness, gains, 0.005, 0.95)
    assert threshold is not None
    assert threshold > 0.79


def test_the_loss_on_new_queries_keeps_the_limit_as_often_as_was_said() -> None:
    """300 times: 300 queries to learn from, the true mean loss of what was learned.

    Sureness says half of what there is to know. With 95 % confidence at most one in twenty may go
    beyond; Student's t is approximate, so a little more is let pass here.
    """
    rng = np.random.default_rng(1)
    limit, beyond, skipped = 0.01, 0, []
    many = rng.uniform(size=20_000)
    true_gain = 0.12 * (1 - many)

    for _ in range(300):
        sureness = rng.uniform(size=300)
        happens = rng.uniform(size=300) < 0.4 * (1 - sureness)
        threshold = threshold_for(sureness, 0.3 * happens, limit, 0.95)
        if threshold is None:
            skipped.append(0.0)
            continue
        is_skipped = many >= threshold
        skipped.append(float(is_skipped.mean()))
        beyond += float((true_gain * is_skipped).mean()) > limit
    assert beyond / 300 <= 0.08
    assert np.mean(skipped) > 0.1, "a rule that skips nobody keeps every limit"


def test_the_same_queries_give_the_same_answer_and_few_give_none() -> None:
    rng = np.random.default_rng(2)
    sureness, gains = rng.uniform(size=60), rng.normal(0, 0.05, 60)
    assert calibrate(sureness, gains, 0.02) == calibrate(sureness, gains, 0.02)
    assert calibrate(sureness[:19], gains[:19], 0.02) is None
