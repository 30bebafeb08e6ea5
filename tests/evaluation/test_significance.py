"""Significance: values by hand, what cannot be tested, and how often the rule errs."""

import gc
import math
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from rerank_batch.evaluation import significance
from rerank_batch.evaluation.significance import (
    Floats,
    PairedTest,
    bootstrap_interval,
    detectable_difference,
    holm,
    paired_tests,
    randomisation_p_value,
    t_test_p_value,
)

GAINS = np.array([0.5, 0.0, -0.25, 0.75, 0.5, 0.125])


@pytest.fixture(autouse=True)
def little_garbage() -> Iterator[None]:
    """statsmodels collects all garbage in every correction, a tenth of a second each."""
    gc.freeze()
    yield
    gc.unfreeze()


def one(gains: list[float]) -> PairedTest:
    return paired_tests({"nDCG@10": gains})["nDCG@10"]


# --- values --------------------------------------------------------------------------------------


def test_a_comparison_by_hand() -> None:
    found = one(GAINS.tolist())
    assert (found.wins, found.ties, found.losses) == (4, 1, 1)
    assert (found.queries, found.comparisons) == (6, 1)
    assert found.difference == pytest.approx(1.625 / 6)
    spread = math.sqrt(sum((gain - 1.625 / 6) ** 2 for gain in GAINS) / 5)
    assert found.effect_size == pytest.approx(1.625 / 6 / spread)
    # Signs of 0.5, 0.25, 0.75, 0.5, 0.125 whose sum is at least 1.625, of the 32 there are: all
    # plus, minus 0.125 and minus 0.25. As many on the other side.
    assert found.p_value == pytest.approx(2 * 3 / 32)
    assert found.corrected_p_value == found.p_value
    assert found.outcome == "undecided"


def test_the_t_test_is_that_of_scipy_on_pairs() -> None:
    before, after = np.array([0.0, 0.5, 1.0, 0.25, 0.5]), np.array([0.5, 0.5, 0.75, 1.0, 1.0])
    assert t_test_p_value(after - before) == pytest.approx(stats.ttest_rel(after, before).pvalue)


def test_a_tiny_difference_is_a_tie() -> None:
    found = one([1e-12, -1e-12, 0.01, -0.4])
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)


def test_many_gains_give_the_p_value_of_every_sign() -> None:
    """20 gains have a million signs; drawn ones come within three standard errors."""
    gains = np.random.default_rng(4).normal(0.05, 0.2, 20)
    signs = 1 - 2 * ((np.arange(2**20)[:, None] >> np.arange(20)) & 1)
    exact = float((np.abs(signs @ gains) >= abs(gains.sum()) - 1e-12).mean())
    error = math.sqrt(exact * (1 - exact) / 9_999)
    assert randomisation_p_value(gains) == pytest.approx(exact, abs=3 * error)


def test_the_interval_leans_to_the_long_tail_of_the_gains() -> None:
    """BCa of a skewed sample reaches farther to the side of the few large gains."""
    gains = np.array([0.0] * 30 + [0.05] * 8 + [0.9, 1.0])
    interval = bootstrap_interval(gains)
    assert interval is not None
    low, high = interval
    assert high - gains.mean() > 1.5 * (gains.mean() - low)


def test_of_thousands_of_queries_the_interval_is_that_of_the_normal_distribution() -> None:
    gains = np.random.default_rng(0).normal(0.02, 0.3, 6_000)
    half = 1.96 * gains.std(ddof=1) / math.sqrt(6_000)
    wanted = (gains.mean() - half, gains.mean() + half)
    assert bootstrap_interval(gains) == pytest.approx(wanted, abs=0.05 * half)


def test_holm_by_hand() -> None:
    """0.01 by 4, 0.02 by 3, then 0.03 by 2, which may not fall again, and 0.9."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])


@pytest.mark.parametrize("comparisons", [1, 4, 20])
@pytest.mark.parametrize("queries", [20, 50, 198, 6_980])
def test_the_detectable_difference_has_the_power_that_statsmodels_computes(
    queries: int, comparisons: int
) -> None:
    gains = np.random.default_rng(queries).normal(0.0, 0.25, queries)
    found = detectable_difference(gains, comparisons)
    assert found is not None
    power = TTestPower().power(found / gains.std(ddof=1), queries, 0.05 / comparisons)
    assert power == pytest.approx(0.8, abs=0.02)


def test_what_can_be_detected_does_not_depend_on_what_was_seen() -> None:
    assert detectable_difference(GAINS + 3, 1) == pytest.approx(detectable_difference(GAINS, 1))


# --- what is not defined -------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 2, 200])
def test_two_copies_of_a_system_are_undecided(queries: int) -> None:
    found = one([0.0] * queries)
    assert found.outcome == "undecided"
    assert found.p_value == found.corrected_p_value == 1.0
    assert (found.interval, found.effect_size, found.t_test_p_value) == (None, None, None)
    assert "unchanged, so there is nothing to decide" in found.doubt


def test_float_dust_between_two_copies_is_no_difference() -> None:
    found = one([2e-16] * 100)
    assert (found.outcome, found.ties, found.difference) == ("undecided", 100, 0.0)


def test_one_query_decides_nothing() -> None:
    found = one([0.9])
    assert (found.outcome, found.p_value, found.difference) == ("undecided", 1.0, 0.9)
    assert (found.interval, found.effect_size, found.detectable) == (None, None, None)
    assert found.doubt == "This query cannot tell any difference from chance."


def test_equal_gains_have_no_spread_but_a_sign() -> None:
    """Ten coins that all fall on one side are no chance, and the t-test has no word for it."""
    found = one([-0.1] * 10)
    assert (found.interval, found.effect_size, found.detectable) == (None, None, None)
    assert found.t_test_p_value is None
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.outcome == "worse"
    assert one([0.1] * 5).outcome == "undecided"


def test_where_no_gains_would_decide_nothing_can_be_detected() -> None:
    """Five signs reach p = 1/16, six 1/32, which two comparisons correct to 1/16."""
    assert detectable_difference(GAINS[:5], 1) is None
    assert detectable_difference(GAINS, 1) is not None
    assert detectable_difference(GAINS, 2) is None


@pytest.mark.parametrize("queries", range(1, 5))
def test_no_gains_give_nan(queries: int) -> None:
    """Every choice of so many gains out of three."""
    for gains in combinations_with_replacement((-1.0, 0.0, 0.25), queries):
        well_defined(gains)


def well_defined(gains: tuple[float, ...]) -> None:
    found = one(list(gains))
    assert 0 < found.p_value <= 1
    assert found.wins + found.ties + found.losses == len(gains)
    assert (found.interval is None) == (len(set(gains)) == 1)
    if found.interval is not None:
        low, high = found.interval
        assert min(gains) <= low <= high <= max(gains)
    for number in (found.effect_size, found.t_test_p_value, found.detectable):
        assert number is None or math.isfinite(number)


# --- the decision and its words ------------------------------------------------------------------


def test_an_undecided_comparison_names_what_these_queries_can_tell() -> None:
    gains = np.random.default_rng(1).normal(0.0, 0.1, 198)
    found = one(gains.tolist())
    assert found.detectable == pytest.approx(0.02, abs=0.002)
    assert found.doubt == (
        "The difference can be chance: these 198 queries can tell differences of "
        f"{found.detectable:.3f} or more, four times in five."
    )


def test_a_clear_gain_is_better_and_its_mirror_worse() -> None:
    gains = np.random.default_rng(2).normal(0.1, 0.1, 60)
    better, worse = one(gains.tolist()), one((-gains).tolist())
    assert (better.outcome, better.doubt) == ("better", "")
    assert (worse.outcome, worse.doubt) == ("worse", "")
    assert worse.p_value == better.p_value


def test_more_comparisons_ask_for_more_of_each() -> None:
    noise = np.random.default_rng(5).normal(0.0, 0.2, 60)
    gains = (noise - noise.mean() + 0.06).tolist()
    chance = [[(-1.0) ** place * gain for place, gain in enumerate(gains)] for _ in range(9)]
    alone = one(gains)
    family = paired_tests({("a", "b", place): g for place, g in enumerate([gains, *chance])})
    among = family["a", "b", 0]
    assert (alone.outcome, among.outcome) == ("better", "undecided")
    assert among.p_value == alone.p_value
    assert among.corrected_p_value == pytest.approx(10 * alone.p_value)
    assert among.detectable is not None and alone.detectable is not None
    assert among.detectable > alone.detectable


def test_the_same_gains_give_the_same_answer() -> None:
    gains = np.random.default_rng(6).normal(0.0, 0.2, 100).tolist()
    assert one(gains) == one(gains)


# --- how often it errs ---------------------------------------------------------------------------

MEASURES = {
    "nDCG@10": lambda rank: np.where(rank <= 10, 1 / np.log2(1 + rank), 0.0),
    "RR@10": lambda rank: np.where(rank <= 10, 1 / rank, 0.0),
    "Success@5": lambda rank: np.where(rank <= 5, 1.0, 0.0),
    "RR": lambda rank: 1 / rank,
}


def null_families(count: int, queries: int) -> Iterator[dict[str, list[float]]]:
    """Gains of four measures between two systems that are equally good.

    One document per query is relevant, as in MS MARCO. Queries are hard or easy; given that, both
    systems put the document at ranks of one distribution. From a third of the gains (RR) to four
    fifths (Success@5) are 0.
    """
    rng = np.random.default_rng(0)
    for _ in range(count):
        ease = rng.beta(0.6, 0.9, queries).clip(0.005)
        before, after = rng.geometric(ease), rng.geometric(ease)
        yield {name: (value(after) - value(before)).tolist() for name, value in MEASURES.items()}


def test_copies_take_nothing_from_the_other_comparisons() -> None:
    """Five changed queries reach p = 1/16 at best: no family needs to leave room for them."""
    gains = [0.25] * 6 + [0.0] * 4
    few = [0.5] * 5 + [0.0] * 5
    alone = paired_tests({"a": gains})
    beside = paired_tests({"a": gains, "copy": [0.0] * 10, "few": few})
    assert beside["a"] == alone["a"]
    assert beside["a"].outcome == "better"
    assert (beside["copy"].outcome, beside["few"].outcome) == ("undecided", "undecided")
    assert beside["few"].corrected_p_value == 1 / 16


@pytest.mark.parametrize("shift", [0.0, 0.002, 0.005])
def test_the_normal_limit_of_many_queries_is_what_draws_would_say(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = skewed(np.random.default_rng(1), 30_000) - 0.04 + shift
    limit, interval = randomisation_p_value(gains), bootstrap_interval(gains)
    monkeypatch.setattr(significance, "_MOST_FOR_DRAWS", len(gains))
    drawn = randomisation_p_value(gains)
    assert limit == pytest.approx(drawn, abs=4 * math.sqrt(limit * (1 - limit) / 9_999) + 2e-4)
    assert interval == pytest.approx(bootstrap_interval(gains), abs=2e-4)


@pytest.mark.slow
def test_one_comparison_without_a_difference_is_decided_once_in_twenty() -> None:
    """The whole rule on 1,000 null comparisons of 50 queries: within 1 point of the level."""
    decided = sum(
        one(family["nDCG@10"]).outcome != "undecided" for family in null_families(1_000, 50)
    )
    print(f"type I error: {decided / 1_000:.3f}")
    assert abs(decided / 1_000 - 0.05) <= 0.01


@pytest.mark.slow
def test_a_family_of_four_is_wrong_no_more_often_than_one() -> None:
    """1,000 null families: at most 1 point over the level; Holm may well stay below it.

    Uncorrected, the same families are wrong far more often: else the check would check nothing.
    """
    wrong = uncorrected = 0
    for family in null_families(1_000, 50):
        tests = paired_tests(family).values()
        wrong += any(test.outcome != "undecided" for test in tests)
        uncorrected += any(test.p_value < 0.05 for test in tests)
    print(f"family-wise error: {wrong / 1_000:.3f}, uncorrected {uncorrected / 1_000:.3f}")
    assert wrong / 1_000 <= 0.06
    assert uncorrected / 1_000 > 0.07


def skewed(rng: np.random.Generator, queries: int) -> Floats:
    """Gains that are zero half of the time, else mostly small and seldom large; mean 0.04."""
    return np.where(rng.uniform(size=queries) < 0.5, 0.0, rng.beta(0.5, 2.0, queries) - 0.12)


@pytest.mark.slow
def test_gains_that_are_skewed_and_zero_on_average_pass_for_chance_if_queries_are_many() -> None:
    """Systems equal only on average are not exchangeable; 200 queries make up for it."""
    rng = np.random.default_rng(0)
    decided = sum(
        one((skewed(rng, 200) - 0.04).tolist()).outcome != "undecided" for _ in range(1_000)
    )
    print(f"type I error, skewed: {decided / 1_000:.3f}")
    assert decided / 1_000 <= 0.06


@pytest.mark.slow
def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    """1,000 samples of 100 skewed gains: within 2 points of 95 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1_000):
        interval = bootstrap_interval(skewed(rng, 100))
        assert interval is not None
        covered += interval[0] <= 0.04 <= interval[1]
    print(f"coverage: {covered / 1_000:.3f}")
    assert abs(covered / 1_000 - 0.95) <= 0.02


def symmetric(rng: np.random.Generator, queries: int, gain: float) -> Floats:
    """As often and as far above ``gain`` as below, seldom far."""
    return gain + rng.choice([-1, 0, 0, 1], queries) * rng.beta(0.5, 2.0, queries)


def skewed_up(rng: np.random.Generator, queries: int, gain: float) -> Floats:
    return skewed(rng, queries) - 0.04 + gain


def skewed_down(rng: np.random.Generator, queries: int, gain: float) -> Floats:
    return 0.04 - skewed(rng, queries) + gain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "comparisons", "within"),
    [(symmetric, 1, 0.06), (symmetric, 4, 0.06), (skewed_up, 1, 0.12), (skewed_down, 1, 0.12)],
)
def test_a_true_gain_of_the_detectable_size_is_found_four_times_in_five(
    draw: Callable[[np.random.Generator, int, float], Floats], comparisons: int, within: float
) -> None:
    """300 sets of 200 queries with the true gain that sets of their spread can detect.

    The other comparisons of the family find nothing, which is when Holm asks most of this one.
    The formula knows the spread and not the skew, which costs or adds some points.
    """
    rng = np.random.default_rng(1)
    detectable = detectable_difference(draw(rng, 100_000, 0.0), comparisons)
    assert detectable is not None
    gain = detectable * math.sqrt(100_000 / 200)
    rest = {place: [0.1, -0.1] * 3 for place in range(1, comparisons)}
    found = sum(
        paired_tests({0: draw(rng, 200, gain).tolist(), **rest})[0].outcome == "better"
        for _ in range(300)
    )
    print(f"power, {draw.__name__}, {comparisons} comparisons: {found / 300:.3f}")
    assert abs(found / 300 - 0.8) <= within
