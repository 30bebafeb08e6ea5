"""Whether a better ranking led to better outcomes: values from outside in the same statistics.

An outcome is compared as a measure is, pairwise by query: of each system against the baseline, over
the queries that have it under both. Beside that, how far the gains of the headline measure and of
the outcome go together, query by query: where they do not, the measure is no stand-in for it.

Knows `outcomes.OUTCOMES`, systems by name and queries by number; neither runs nor judgements.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from rerank_batch.data.outcomes import Outcomes
from rerank_batch.evaluation.significance import LEVEL, TIE, PairedTest, paired_tests
from rerank_batch.schema import JsonObject

LEAST_QUERIES = 10
"""Fewer pairs of gains say nothing of how two things go together."""

MAX_NAMES = 5
"""Unknown systems that are named."""

_MOST_FOR_PERMUTATIONS = 2_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GainAgreement:
    """How far gains of the headline measure and of an outcome go together.

    ``correlation`` is Spearman's over the ``queries`` that have both, ``p_value`` (of a permutation
    test) of it alone. Its 95 % ``interval`` is that of Bonett and Wright, "Sample Size Requirements
    for Estimating Pearson, Kendall and Spearman Correlations", Psychometrika 65 (2000). All are
    None where they cannot be told. Of the queries that changed in both, ``same_way`` changed in one
    direction.
    """

    queries: int
    same_way: int
    opposite: int
    correlation: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class OutcomeRow:
    """An outcome of a system beside that of the baseline.

    ``both`` queries have it under both systems; the means, the test and ``headline_difference``,
    the mean gain of the headline measure, are over these. The others have it under one of the two
    or under none. Gains are improvements: of an outcome of which ``less_is_better``, what it fell.
    Without a query in both there is no test and no mean.
    """

    outcome: str
    system: str
    less_is_better: bool
    both: int
    only_baseline: int
    only_system: int
    neither: int
    baseline_mean: float | None
    mean: float | None
    headline_difference: float | None
    test: PairedTest | None
    agreement: GainAgreement

    def to_json(self) -> JsonObject:
        """The row as JSON values, those of its test beside its own."""
        own = {key: value for key, value in vars(self).items() if key not in ("test", "agreement")}
        test = {} if self.test is None else {**vars(self.test), "result": self.test.outcome}
        doubt = self.test.doubt if self.test else ""
        return {**own, **test, "doubt": doubt, "agreement": vars(self.agreement)}


@dataclass(frozen=True)
class Joined:
    """Which rows of the outcomes found a query and a system.

    ``rows`` were read: ``used``, or counted in ``dropped`` by reason. ``repeated`` of those used
    are further values of a query, system and outcome that had one, and count in its mean.
    ``unknown_systems`` are the first names that are none of the systems.
    """

    rows: int
    used: int
    repeated: int
    dropped: Mapping[str, int]
    unknown_systems: tuple[str, ...]

    def in_words(self) -> str:
        """What was read and what of it could not be joined, in one sentence."""
        if not self.dropped:
            sentence = f"all {self.rows:,} rows found their query and system"
        else:
            parts = (f"{n:,} {self._why(reason)}" for reason, n in self.dropped.items())
            found = f"{self.used:,}" if self.used else "none"
            sentence = (
                f"{found} of {self.rows:,} rows found their query and system; {', '.join(parts)}"
            )
        if self.repeated:
            sentence += f"; {self.repeated:,} repeat a query, system and outcome: their mean counts"
        return sentence

    def _why(self, reason: str) -> str:
        if reason == "unknown_system":
            return f"of another system ({', '.join(self.unknown_systems)})"
        return _REASONS.get(reason, reason)


_REASONS = {
    "missing_name": "without an id, a system or an outcome",
    "missing_value": "without a value",
    "not_finite": "with a value that is no finite number",
    "unknown_query": "of a query that is not judged here",
}


@dataclass(frozen=True)
class AnswerCase:
    """A query with what was answered from the list of each system, and the grade of that.

    ``answers`` are (system, grade, answer); None where there is none.
    """

    query_id: str
    text: str
    references: tuple[str, ...]
    answers: tuple[tuple[str, int | None, str | None], ...]

    @property
    def spread(self) -> int:
        """From the worst grade to the best."""
        grades = [grade for _, grade, _ in self.answers if grade is not None]
        return max(grades) - min(grades) if grades else 0


@dataclass(frozen=True)
class OutcomeStudy:
    """A row per outcome and system other than the baseline, and what was joined.

    Where answers were graded, ``remarks`` are sentences on how, ``cases`` the queries whose answers
    differ most, and ``answers`` JSON values of what was asked and what it cost.
    """

    headline: str
    baseline: str
    rows: tuple[OutcomeRow, ...]
    joined: Joined
    remarks: tuple[str, ...] = ()
    cases: tuple[AnswerCase, ...] = ()
    answers: Mapping[str, Any] | None = None

    def to_json(self) -> JsonObject:
        """The study as JSON values: numbers, names and sentences, no texts of queries or answers.

        The ``outcome`` of a row is its name; what its test decides is the ``result``.
        """
        return {
            "headline": self.headline,
            "baseline": self.baseline,
            "rows": [{**row.to_json(), "in_words": self.in_words(row)} for row in self.rows],
            "joined": {**vars(self.joined), "in_words": self.joined.in_words()},
            "remarks": list(self.remarks),
            "answers": self.answers,
        }

    def in_words(self, row: OutcomeRow) -> str:
        """How far the headline measure speaks for the outcome, in a sentence or two."""
        found, name = row.agreement, row.outcome
        if row.both == 0:
            return (
                f"no query has {name} under both {self.baseline} and {row.system}, so nothing is "
                "compared"
            )
        if found.queries < LEAST_QUERIES:
            return (
                f"{_queries(found.queries)} with both {self.headline} and {name} are too few to "
                f"tell how far they go together: it takes {LEAST_QUERIES}"
            )
        if found.correlation is None or found.interval is None or found.p_value is None:
            return (
                f"how far {self.headline} and {name} go together cannot be told: one of them "
                f"gained the same in all of {_queries(found.queries)}"
            )
        low, high = found.interval
        numbers = (
            f"Spearman's rho {found.correlation:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"p {_p(found.p_value)}, {_queries(found.queries)}"
        )
        changed = found.same_way + found.opposite
        moved = (
            f"; of {changed:,} that changed in both, {found.same_way:,} changed the same way"
            if changed
            else "; none changed in both"
        )
        if not found.p_value < LEVEL:
            return (
                f"gains in {self.headline} do not tell gains in {name}: any link can be chance "
                f"({numbers}){moved}"
            )
        if found.correlation < 0:
            return (
                f"queries that gain in {self.headline} tend to lose in {name} ({numbers}){moved}: "
                "the measure and the outcome pull apart"
            )
        return (
            f"queries that gain in {self.headline} tend to gain in {name}, "
            f"{_strength(found.correlation)} ({numbers}){moved}"
        )


def study_outcomes(
    outcomes: Outcomes,
    systems: Sequence[str],
    query_ids: Sequence[Sequence[str]],
    headline: str,
    values: Mapping[str, Floats],
    less_is_better: Sequence[str] = (),
) -> OutcomeStudy:
    """Compare every outcome of every system with that of the first, the baseline.

    ``query_ids[i]`` are all ids that query i stands for; no id stands for two. ``values`` hold of
    each system the headline measure [n], NaN where a query was not judged. The tests are one family
    under Holm's correction: every outcome of every system.
    """
    joined, found = join(outcomes, systems, query_ids)
    baseline, *others = systems
    pairs = {
        (outcome, system): _gains(each[baseline], each[system], outcome in less_is_better)
        for outcome, each in found.items()
        for system in others
    }
    both = {key: ~np.isnan(gains) for key, gains in pairs.items()}
    tests = paired_tests(
        {key: list(gains[both[key]]) for key, gains in pairs.items() if both[key].any()}
    )
    rows = []
    for (outcome, system), gains in pairs.items():
        shared, before, after = both[outcome, system], *(
            found[outcome][name] for name in (baseline, system)
        )  # fmt: skip
        headline_gains = values[system] - values[baseline]
        there = shared & ~np.isnan(headline_gains)
        rows.append(
            OutcomeRow(
                outcome=outcome,
                system=system,
                less_is_better=outcome in less_is_better,
                both=int(shared.sum()),
                only_baseline=int((~np.isnan(before) & np.isnan(after)).sum()),
                only_system=int((np.isnan(before) & ~np.isnan(after)).sum()),
                neither=int((np.isnan(before) & np.isnan(after)).sum()),
                baseline_mean=_mean(before[shared]),
                mean=_mean(after[shared]),
                headline_difference=_mean(headline_gains[there]),
                test=tests.get((outcome, system)),
                agreement=agreement(headline_gains[there], gains[there]),
            )
        )
    return OutcomeStudy(headline, baseline, tuple(rows), joined)


def join(
    outcomes: Outcomes, systems: Sequence[str], query_ids: Sequence[Sequence[str]]
) -> tuple[Joined, dict[str, dict[str, Floats]]]:
    """Outcome -> system -> value per query [n], NaN where there is none; and what was joined."""
    table = outcomes.table
    ids = [(alias, number) for number, listed in enumerate(query_ids) for alias in listed]
    owners = np.array([number for _, number in ids], dtype=np.int64)
    names = sorted(pc.unique(table.column("outcome")).to_pylist())
    alias = _places(table.column("query_id"), [alias for alias, _ in ids])
    system = _places(table.column("system"), list(systems))
    outcome = _places(table.column("outcome"), names)
    known = system >= 0
    used = known & (alias >= 0)
    strangers = pc.unique(table.column("system").filter(pa.array(~known))).to_pylist()
    shape = (len(names), len(systems), len(query_ids))
    cells = np.ravel_multi_index((outcome[used], system[used], owners[alias[used]]), shape)
    # One after the other in the order of the rows, so that the same file gives the same mean.
    sums = np.bincount(cells, table.column("value").to_numpy()[used], math.prod(shape))
    counts = np.bincount(cells, minlength=math.prod(shape))
    with np.errstate(invalid="ignore"):
        means = (sums / counts).reshape(shape)
    dropped = {
        **outcomes.dropped,
        "unknown_system": int((~known).sum()),
        "unknown_query": int((known & ~used).sum()),
    }
    return (
        Joined(
            rows=outcomes.rows,
            used=int(used.sum()),
            repeated=int(used.sum() - (counts > 0).sum()),
            dropped={reason: count for reason, count in dropped.items() if count},
            unknown_systems=tuple(sorted(strangers)[:MAX_NAMES]),
        ),
        {
            name: {system: means[i, j] for j, system in enumerate(systems)}
            for i, name in enumerate(names)
        },
    )


def agreement(headline: Floats, outcome: Floats) -> GainAgreement:
    """How far two gains of the same queries go together; see `GainAgreement`."""
    one, two = (np.where(np.abs(gains) <= TIE, 0.0, gains) for gains in (headline, outcome))
    signs = np.sign(one) * np.sign(two)
    count, same, opposite = len(one), int((signs > 0).sum()), int((signs < 0).sum())
    flat = any(len(gains) == 0 or np.ptp(gains) <= TIE for gains in (one, two))
    if count < LEAST_QUERIES or flat:
        return GainAgreement(count, same, opposite)
    rho = float(np.clip(stats.spearmanr(one, two).statistic, -1.0, 1.0))
    with np.errstate(divide="ignore"):  # of gains in the very same order: from 1 to 1
        middle = np.arctanh(rho)
    reach = stats.norm.ppf(0.975) * math.sqrt((1 + rho**2 / 2) / (count - 3))
    low, high = np.tanh([middle - reach, middle + reach])
    return GainAgreement(count, same, opposite, rho, (float(low), float(high)), _chance(one, two))


def _chance(one: Floats, two: Floats) -> float:
    """Two-sided p of Spearman's correlation: how often gains paired at random go together as far.

    Most gains are zero, and with few others the usual approximation finds something twice as often
    as it may; from some thousand queries on it is taken, because permutations take long there.
    """
    if len(one) > _MOST_FOR_PERMUTATIONS:
        return float(stats.spearmanr(one, two).pvalue)
    # Twice the ranks are whole numbers, so that sums that are equal are equal.
    first, second = (2 * stats.rankdata(gains) - len(gains) - 1 for gains in (one, two))
    test = stats.permutation_test(
        (first,),
        lambda shuffled, axis: (shuffled * second).sum(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=9_999,
        batch=max(1, (1 << 17) // len(one)),
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def _gains(before: Floats, after: Floats, less_is_better: bool) -> Floats:
    return before - after if less_is_better else after - before


def _mean(values: Floats) -> float | None:
    return math.fsum(values) / len(values) if len(values) else None


def _places(column: pa.ChunkedArray, known: Sequence[str]) -> NDArray[np.int64]:
    """Of each value its place among those that are known; -1 where it is none."""
    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    places: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"


def _strength(rho: float) -> str:
    """In the words of Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988."""
    return "weakly" if rho < 0.3 else "moderately" if rho < 0.5 else "strongly"
