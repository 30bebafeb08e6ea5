"""Whether a difference between two systems is more than chance, and what a query set can tell.

The rule: a comparison is better or worse where the p value of the paired randomisation test,
corrected by Holm over every comparison of the family (systems x measures) that could be decided at
all, is below 0.05; else it is undecided. The randomisation test decides and not the t-test, because
gains of retrieval measures are mostly zero and skewed, and it asks of them only that under chance
either system could have had either value (Smucker, Allan and Carterette, "A Comparison of
Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007,
https://doi.org/10.1145/1321440.1321528). Of systems that are equal only on average, one often a
little better and seldom much worse, fewer than some 100 queries decide more often than the level
says; so would the t-test.

Numbers come in, per comparison the gain of every query; this module knows neither measures nor
systems nor runs. All draws have a fixed seed: the same gains give the same answer.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.05
"""How often a family of comparisons without any true difference may find one."""

POWER = 0.8
CONFIDENCE = 0.95
TIE = 1e-9

Floats = NDArray[np.float64]
Outcome = Literal["better", "worse", "undecided"]
Key = TypeVar("Key", bound=Hashable)

_SEED = 0
_RESAMPLES = 9_999
_DRAWS_AT_ONCE = 1 << 17  # a few megabytes, whatever the number of queries
_MOST_FOR_EXACT = 13  # 8,192 signs, fewer than are drawn beyond
_MOST_FOR_BCA = 5_000
_MOST_FOR_DRAWS = 20_000


@dataclass(frozen=True)
class PairedTest:
    """A system against a baseline in one measure, over the same queries.

    ``interval`` is the 95 % bootstrap interval of ``difference``, the mean gain. Like ``p_value``
    (randomisation test) and ``t_test_p_value`` it is of this comparison alone and decides nothing;
    ``corrected_p_value`` does. ``effect_size`` is the mean gain in standard deviations of the gains
    (d_z of Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.3.5).
    For ``detectable`` see `detectable_difference`. What one query or equal gains do not define is
    None.
    """

    queries: int
    comparisons: int
    difference: float
    interval: tuple[float, float] | None
    effect_size: float | None
    wins: int
    ties: int
    losses: int
    t_test_p_value: float | None
    p_value: float
    corrected_p_value: float
    detectable: float | None

    @property
    def outcome(self) -> Outcome:
        """The decision, by the rule at the top."""
        if not self.corrected_p_value < LEVEL:
            return "undecided"
        return "better" if self.difference > 0 else "worse"

    @property
    def doubt(self) -> str:
        """Why an undecided comparison is undecided, in one sentence; empty for a decided one."""
        if self.outcome != "undecided":
            return ""
        these = "This query" if self.queries == 1 else f"These {self.queries:,} queries"
        if not self.wins and not self.losses:
            verb = "is" if self.queries == 1 else "are"
            return f"{these} {verb} unchanged, so there is nothing to decide."
        if self.detectable is None:
            return f"{these} cannot tell any difference from chance."
        return (
            f"The difference can be chance: these {self.queries:,} queries can tell differences of "
            f"{max(self.detectable, 0.001):.3f} or more, four times in five."
        )


def paired_tests(family: Mapping[Key, Sequence[float]]) -> dict[Key, PairedTest]:
    """Test every comparison of a family, which is all that were made to answer one question.

    ``family`` holds under any name, such as (system, baseline, measure), the gains of at least one
    query: the system's value minus the baseline's.
    """
    # Measures are sums of floats: gains this small are what is left of equal values.
    gains = {key: np.asarray(values, dtype=float) for key, values in family.items()}
    gains = {key: np.where(np.abs(found) <= TIE, 0.0, found) for key, found in gains.items()}
    p_values = {key: randomisation_p_value(found) for key, found in gains.items()}
    corrected = dict(p_values)
    testable = [key for key, found in gains.items() if can_be_decided(found)]
    corrected |= zip(testable, holm([p_values[key] for key in testable]), strict=True)
    count = max(len(testable), 1)
    return {
        key: PairedTest(
            queries=len(found),
            comparisons=count,
            difference=math.fsum(found) / len(found),
            interval=bootstrap_interval(found),
            effect_size=effect_size(found),
            wins=int((found > 0).sum()),
            ties=int((found == 0).sum()),
            losses=int((found < 0).sum()),
            t_test_p_value=t_test_p_value(found),
            p_value=p_values[key],
            corrected_p_value=corrected[key],
            detectable=detectable_difference(found, count),
        )
        for key, found in gains.items()
    }


def randomisation_p_value(gains: Floats) -> float:
    """Two-sided paired randomisation test: how often random signs give a mean gain as large.

    Exact up to 13 changed queries. Beyond, 9,999 signs per query are drawn, by scipy's Monte Carlo
    test because its permutation test takes minutes for thousands of queries. From 20,000 on the sum
    of so many random signs is as good as normal, and its variance is known.
    """
    changed = gains[gains != 0]  # a sign does nothing to a zero
    if len(changed) < 2:
        return 1.0
    if len(changed) > _MOST_FOR_DRAWS:
        z = abs(math.fsum(changed)) / math.sqrt(math.fsum(changed**2))
        return float(2 * stats.norm.sf(z))
    if len(changed) <= _MOST_FOR_EXACT:
        test = stats.permutation_test(
            (changed,), np.sum, permutation_type="samples", vectorized=True, n_resamples=np.inf
        )
        return float(test.pvalue)
    rng = np.random.default_rng(_SEED)
    test = stats.monte_carlo_test(
        np.ones(len(changed)),
        rvs=lambda size: 1.0 - 2.0 * rng.integers(0, 2, size, dtype=np.int8),
        statistic=lambda signs, axis: signs @ changed,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_batch(len(changed)),
    )
    return float(test.pvalue)


def t_test_p_value(gains: Floats) -> float | None:
    """Two-sided paired t-test, shown beside the test that decides."""
    return None if _is_flat(gains) else float(stats.ttest_1samp(gains, 0.0).pvalue)


def can_be_decided(gains: Floats) -> bool:
    """Whether enough queries changed for any outcome to be called significant.

    With five, all of one sign, the p value is 1/16. A comparison that no outcome could decide takes
    nothing from the others of its family (Tarone, "A Modified Bonferroni Method for Discrete Data",
    Biometrics 46, 1990), so that recall at full depth, which reranking cannot change, costs nothing
    to ask for.
    """
    return bool(2.0 ** (1 - np.count_nonzero(gains)) <= LEVEL)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values that may be held against the level although there are several of them.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6 (1979): valid however the comparisons depend on each other.
    """
    if not p_values:
        return []
    return [float(value) for value in multipletests(p_values, method="holm")[1]]


def bootstrap_interval(gains: Floats) -> tuple[float, float] | None:
    """95 % interval of the mean gain, bias-corrected and accelerated (BCa).

    Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987). Its jackknife takes time in the
    square of the queries; from some thousand on the percentile interval is taken, which agrees with
    it there, and from 20,000 on the normal one, to which that comes. Below some 20 queries any of
    them is too short.
    """
    if _is_flat(gains):
        return None
    if len(gains) > _MOST_FOR_DRAWS:
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) * gains.std(ddof=1) / math.sqrt(len(gains))
        return float(gains.mean() - half), float(gains.mean() + half)
    found = stats.bootstrap(
        (gains,),
        np.mean,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        batch=_batch(len(gains)),
        method="BCa" if len(gains) <= _MOST_FOR_BCA else "percentile",
        rng=np.random.default_rng(_SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def effect_size(gains: Floats) -> float | None:
    """Cohen's d_z: the mean gain over the standard deviation of the gains."""
    return None if _is_flat(gains) else float(gains.mean() / gains.std(ddof=1))


def detectable_difference(gains: Floats, comparisons: int) -> float | None:
    """The true mean gain that is found in 80 % of query sets of this size and spread.

    At the level that Holm asks of the first of ``comparisons``, so that it is found whatever
    becomes of the others. It depends on the spread of the gains and not on their mean: power at the
    mean that was seen would only repeat the p value (Hoenig and Heisey, "The Abuse of Power", The
    American Statistician 55, 2001). The formula is Bloom's, "Minimum Detectable Effects",
    Evaluation Review 19 (1995). It needs no search for a root, which statsmodels can miss without a
    word where queries are few, and its power is right within 2 points from 20 queries on; skewed
    gains move that by some points more. None where no gains at all would decide.
    """
    level, count = LEVEL / comparisons, len(gains)
    if _is_flat(gains) or 2 ** (1 - count) >= level:
        return None
    multiple = stats.t.ppf(1 - level / 2, count - 1) + stats.t.ppf(POWER, count - 1)
    return float(multiple * gains.std(ddof=1) / math.sqrt(count))


def _is_flat(gains: Floats) -> bool:
    return bool(np.ptp(gains) <= TIE)


def _batch(queries: int) -> int:
    return max(1, _DRAWS_AT_ONCE // queries)
