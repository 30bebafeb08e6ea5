"""How far two assessors agree: their table, Cohen's kappa and its interval.

Kappa is the share of agreement beyond what two assessors who answer independently, each with their
own habits, would have by chance (Cohen, "A coefficient of agreement for nominal scales", 1960).
With quadratic weights a disagreement counts by the square of the distance of the grades (Cohen,
"Weighted kappa", 1968). The interval is the normal one by the large-sample variance of Fleiss,
Cohen and Everitt (1969), as statsmodels computes it; it takes pairs for independent, although those
of one query are not quite, so that it is narrow rather than wide. Knows tables of counts, not who
the assessors are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.inter_rater import cohens_kappa

from rerank_batch.data.qrels import Judgements
from rerank_batch.llm.grades import HIGHEST
from rerank_batch.schema import JsonObject

Counts = NDArray[np.int64]
"""How often one assessor gave the grade of the row and the other that of the column."""

GRADES = tuple(map(str, range(HIGHEST + 1)))
_RELEVANT = ("not relevant", "relevant")


@dataclass(frozen=True)
class Agreement:
    """Of ``pairs`` that both have graded ``alike`` got the same from both.

    ``kappa`` is None where one of them gave all pairs the same grade, if any: it says nothing then.
    ``interval`` is at 95 %, None where they never disagree: then nothing can be estimated from it.
    ``how`` says what was compared, ``grades`` are the heads of ``table``: a row for each grade of
    the first assessor, a column for each of the other.
    """

    pairs: int
    alike: int
    kappa: float | None
    interval: tuple[float, float] | None
    how: str
    grades: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    def to_json(self) -> JsonObject:
        """For the dataset card and final.json."""
        return asdict(self)


def agreement(
    counts: Counts, how: str, grades: Sequence[str] = GRADES, weighted: bool = True
) -> Agreement:
    """The agreement of a square table, with quadratic weights or none."""
    pairs, alike = int(counts.sum()), int(np.trace(counts))
    kappa, interval = None, None
    if all((counts.sum(axis=axis) > 0).sum() > 1 for axis in (0, 1)):
        with np.errstate(invalid="ignore"):  # a variance of 0, rounded to less
            found = cohens_kappa(counts, wt="quadratic" if weighted else None)
        kappa = float(found.kappa)
        if alike < pairs and np.isfinite(found.std_kappa):
            interval = (
                max(float(found.kappa_low), -1.0),
                min(float(found.kappa_upp), 1.0),
            )
    table = tuple(tuple(row) for row in counts.tolist())
    return Agreement(pairs, alike, kappa, interval, how, tuple(grades), table)


def between_opinions(twice: Iterable[tuple[int, int]]) -> Agreement:
    """The agreement of the first and the second grade of pairs that were judged twice."""
    how = f"grades 0 to {HIGHEST}, first and second opinion, quadratic weights"
    return agreement(_counted(twice, HIGHEST + 1), how)


def with_judgements(
    common: Sequence[tuple[int, int]], qrels: Judgements, positive: int
) -> Agreement:
    """The agreement of the judge with judgements: pairs of its grade and theirs, theirs second.

    Judgements from 0 to 3 are compared as they are. Of any other scale, by the lowest and highest
    grade that the ``qrels`` hold anywhere, no more is compared than who is relevant: for the judge
    from the grade ``positive`` on, for the judgements as well, or from their highest on where that
    is lower; by plain kappa.
    """
    values = {grade for grades in qrels.values() for grade in grades.values()}
    if min(values) >= 0 and max(values) == HIGHEST:
        how = f"grades 0 to {HIGHEST}, judge and judgements, quadratic weights"
        return agreement(_counted(common, HIGHEST + 1), how)
    theirs = min(positive, max(values))
    how = (
        f"relevant or not, as the judgements go from {min(values)} to {max(values)}: the judge "
        f"from grade {positive}, the judgements from {theirs}; plain kappa"
    )
    relevant = ((int(ours >= positive), int(grade >= theirs)) for ours, grade in common)
    return agreement(_counted(relevant, 2), how, _RELEVANT, weighted=False)


def in_words(found: Mapping[str, Any]) -> str:
    """An `Agreement.as_json` on one line."""
    if not found["pairs"]:
        return "no pair was graded by both"
    alike = f"{found['alike']:,} of {found['pairs']:,} pairs alike"
    if found["kappa"] is None:
        return f"{alike}; all of one grade on one side, so that kappa says nothing"
    if found["interval"] is None:
        return f"kappa {found['kappa']:.2f}, {alike}"
    low, high = found["interval"]
    return f"kappa {found['kappa']:.2f} (95 %: {low:.2f} to {high:.2f}), {alike}"


def _counted(pairs: Iterable[tuple[int, int]], grades: int) -> Counts:
    counts = np.zeros((grades, grades), dtype=np.int64)
    for ours, theirs in pairs:
        counts[ours, theirs] += 1
    return counts
