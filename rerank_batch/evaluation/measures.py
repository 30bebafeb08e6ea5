"""Measures by name, computed by trec_eval through ir-measures.

Rankings are handed over as ``score = -rank``: the order is decided once, in `ranking`, and no
evaluator breaks ties again by rules of its own.
"""

import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import ir_measures

from rerank_batch.data.qrels import Qrels
from rerank_batch.errors import ConfigError

Ranking = Sequence[str]
PerQuery = dict[str, dict[str, float]]


def parse_measures(names: Sequence[str]) -> list[Any]:
    """ir-measures objects of names such as nDCG@10, RR@10, R@50, AP.

    Raises:
        ConfigError: a name that ir-measures does not know or cannot compute.
    """
    return list(_parse(tuple(names)))


@cache
def _parse(names: tuple[str, ...]) -> tuple[Any, ...]:
    """Once for all blocks: each measure is tried out."""
    parsed: list[Any] = []
    for name in names:
        try:
            measure = ir_measures.parse_measure(name)
            next(iter(ir_measures.iter_calc([measure], *_PROBE)))
        except _NOT_A_MEASURE as error:
            raise ConfigError(
                f"evaluation.measures: {name!r} is no measure ({error}); "
                "write them as ir-measures does: nDCG@10, RR@10, R@50, P@5, AP, Success@5, "
                "RBP(rel=1)"
            ) from None
        if measure in parsed:
            raise ConfigError(f"evaluation.measures: {name!r} stands twice, as {measure}")
        parsed.append(measure)
    if not parsed:
        raise ConfigError("evaluation.measures is empty; name at least one, for example nDCG@10")
    return tuple(parsed)


def per_query(
    measures: Sequence[Any], names: Sequence[str], qrels: Qrels, rankings: Mapping[str, Ranking]
) -> PerQuery:
    """Query -> measure -> value, for every query of ``rankings`` that ``qrels`` judges.

    A query with an empty ranking scores 0 in every measure.
    """
    depth = _deepest(measures)
    judged = {query: _safe(qrels[query]) for query in rankings if query in qrels}
    values: PerQuery = {query: dict.fromkeys(names, 0.0) for query in judged}
    scored = {
        query: {document: -float(rank) for rank, document in enumerate(rankings[query][:depth])}
        for query in judged
        if rankings[query]
    }
    if not scored:
        return values
    # By identity: to compare measures ir-measures writes out their names, query by query.
    by_measure = {id(measure): name for measure, name in zip(measures, names, strict=True)}
    subset = {query: judged[query] for query in scored}
    for metric in ir_measures.iter_calc(measures, subset, scored):
        values[metric.query_id][by_measure[id(metric.measure)]] = float(metric.value)
    return values


def _deepest(measures: Sequence[Any]) -> int | None:
    """How much of a ranking the measures look at; None where one of them looks at all of it."""
    cutoffs = [
        None if measure.params.get("judged_only") else measure.params.get("cutoff")
        for measure in measures
    ]
    known = [cutoff for cutoff in cutoffs if cutoff is not None]
    return max(known) if known and len(known) == len(cutoffs) else None


def _safe(grades: Mapping[str, int]) -> dict[str, int]:
    """Grades that trec_eval's code survives.

    It takes -1, for it not relevant and in Bpref not judged, but writes out of bounds on -2 and
    below, and may never return where all grades are negative.
    """
    lowest = -1 if any(grade >= 0 for grade in grades.values()) else 0
    return {document: max(grade, lowest) for document, grade in grades.items()}


_NOT_A_MEASURE = (
    subprocess.CalledProcessError,  # ERR runs a Perl script that takes numbers for query ids alone
    OSError,
    NameError,
    ValueError,
    TypeError,
    SyntaxError,
    StopIteration,
    KeyError,
    AssertionError,
)
_PROBE = ({"q": {"d": 1}}, {"q": {"d": 1.0}})
