"""Is a run good enough? Limits on means, and being no worse than another run by a margin.

That nothing significant was found is no proof that nothing was lost: a run passes as no worse where
the loss it may have, the upper end of a one-sided 95 % confidence interval, is within the margin
(non-inferiority; Piaggio et al., "Reporting of Noninferiority and Equivalence Randomized Trials",
JAMA 308(24), 2012, https://doi.org/10.1001/jama.2012.87802). Losses are paired by query. Knows
neither runs nor files.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.gate.threshold import upper_bound
from rerank_batch.schema import JsonObject

CONFIDENCE = 0.95

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_LIMIT = re.compile(r"\s*(?P<measure>[^<>]*?)\s*(?P<sign>>=|<=|>|<)\s*(?P<value>[^<>=]+?)\s*")


@dataclass(frozen=True)
class Limit:
    """What the mean of a measure has to be."""

    measure: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.measure} {self.sign} {self.value:g}"


@dataclass(frozen=True)
class Check:
    """A requirement of a run, whether the run meets it, and the numbers behind that."""

    requirement: str
    passed: bool
    numbers: str

    def to_json(self) -> JsonObject:
        """The check as an object of metrics.json."""
        return {"asked": self.requirement, "passed": self.passed, "told": self.numbers}


def parse_limit(text: str, measures: Sequence[str]) -> Limit:
    """Read ``nDCG@10>=0.40``; also <=, > and <.

    Raises:
        ConfigError: it is no such text, or the measure is not among those that are computed.
    """
    match = _LIMIT.fullmatch(text)
    try:
        value = float(match["value"]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value):
        raise ConfigError(f"{text!r} is no limit; write MEASURE>=VALUE, also with <=, > or <")
    if match["measure"] not in measures:
        raise ConfigError(
            f"{text!r}: {match['measure']!r} is not measured; evaluation.measures are "
            f"{', '.join(measures)}"
        )
    return Limit(match["measure"], match["sign"], value)


def check_limit(limit: Limit, means: Mapping[str, float]) -> Check:
    """Hold a limit against the mean of every measure."""
    found = means[limit.measure]
    passed = _OPERATORS[limit.sign](found, limit.value)
    return Check(str(limit), passed, f"{limit.measure} is {found:.6g}")


def check_no_worse(
    measure: str, other: str, own: Mapping[str, float], others: Mapping[str, float], margin: float
) -> Check:
    """Hold the values of one run against those of ``other``, on the queries that both judged.

    Raises:
        InputError: they share fewer than two queries, of which no interval can be told.
    """
    shared = sorted(set(own) & set(others))
    if len(shared) < 2:
        raise InputError(
            f"this run and {other} share {len(shared)} judged queries: too few to say whether one "
            "is worse"
        )
    losses = np.array([others[query] - own[query] for query in shared], np.float64)
    bound = upper_bound(losses, CONFIDENCE)
    before, after = (math.fsum(x[q] for q in shared) / len(shared) for x in (others, own))
    return Check(
        requirement=f"{measure} no worse than in {other} by {margin:g}",
        passed=bound <= margin,
        numbers=f"{measure} went from {before:.4f} to {after:.4f} on {len(shared):,} queries of "
        f"both; with {CONFIDENCE:.0%} confidence it lost at most {max(bound, 0.0):.4f}",
    )
