"""How many candidates are worth reranking: quality and cost at every depth, from one scored run.

The best d of the first d candidates are known once the first D > d were scored, as long as a score
belongs to its pair alone: so one run answers for every smaller depth and nothing is scored again.
Whether a run's scores are of that kind, the caller must know; a cascade's and a listwise
reranker's are not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rerank_batch.errors import InputError
from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.evaluation.measures import parse_measures, per_query
from rerank_batch.schema import JsonObject

DEPTHS = (5, 10, 20, 30, 50, 100, 200)
TOLERANCE = 0.002
"""What the headline measure must rise by for a larger depth to be worth its cost."""


@dataclass(frozen=True)
class DepthRow:
    """Means over the judged queries where the first ``depth`` candidates are reranked.

    ``recall`` is the share of the relevant documents among these candidates, which no reranker can
    raise; ``pairs`` is how many of them have to be scored. Depth 0 is retrieval alone.
    """

    depth: int
    values: Mapping[str, float]
    recall: float
    pairs: int


@dataclass(frozen=True)
class DepthStudy:
    """A row per depth, from 0 to the run's own, and ``table``: the same per query.

    The table has the columns query_id, depth, pairs, recall and one per measure.
    """

    headline: str
    rows: tuple[DepthRow, ...]
    table: pa.Table

    @property
    def knee(self) -> DepthRow:
        """The first row that no deeper one beats by `TOLERANCE` in the headline measure.

        Every deeper row counts, not the next and not the last alone: a curve that pauses and rises
        again has its knee behind the second rise, one that rises and then falls at its top.
        """
        values = [row.values[self.headline] for row in self.rows]
        return next(
            row
            for place, row in enumerate(self.rows)
            if max(values[place:]) - values[place] < TOLERANCE
        )

    def to_json(self) -> JsonObject:
        """The study as JSON values."""
        return {
            "headline": self.headline,
            "tolerance": TOLERANCE,
            "knee": self.knee.depth,
            "in_words": self.in_words(),
            "rows": [{**vars(row), "values": dict(row.values)} for row in self.rows],
        }

    def in_words(self) -> str:
        """What a user would want to know of it."""
        name, knee, last = self.headline, self.knee, self.rows[-1]
        if knee.depth == last.depth:
            before = self.rows[-2]
            return (
                f"from {before.depth} to {last.depth} candidates {name} still rises by "
                f"{last.values[name] - before.values[name]:.4f}{_and_cost(before, last)}; more "
                "than the run has may raise it further"
            )
        gain = max(row.values[name] for row in self.rows) - knee.values[name]
        rises = gain > 0
        rise = f"rises by less than {TOLERANCE:g}" if rises else "does not rise"
        fall = knee.values[name] - last.values[name]
        fallen = f" (at {last.depth} it is {fall:.4f} lower)" if fall >= TOLERANCE else ""
        if knee.depth == 0:
            return f"with the reranker {name} {rise} at any depth{fallen}: retrieval alone would do"
        cost = _and_cost(knee, last) if rises else f", cost rises{_by(knee, last)}"
        return f"beyond {knee.depth} candidates {name} {rise}{fallen}{cost}"


@dataclass(frozen=True)
class DepthSums:
    """What some judged queries add to a study: per depth the sums of every measure, of ``recall``
    and of ``pairs``, each as two numbers that are more exact than one; and their ``table``."""

    depths: tuple[int, ...]
    sums: Mapping[tuple[int, str], tuple[float, ...]]
    table: pa.Table


def depths_up_to(depth: int) -> tuple[int, ...]:
    """No reranking, every one of `DEPTHS` below ``depth``, and ``depth`` itself."""
    return (0, *(each for each in DEPTHS if each < depth), depth)


def study_block(
    block: Sequence[JudgedQuery],
    system: str,
    measures: tuple[str, ...],
    depth: int,
    keep: bool = True,
) -> DepthSums:
    """Measure every depth up to ``depth``, which is how many candidates the system's model read.

    With ``keep`` the values of every query are in its table, else none.

    A query that was gated or fell back has no scores: it costs nothing and keeps the order of
    retrieval at any depth.

    Raises:
        InputError: a query's scores end before ``depth``.
    """
    depths = depths_up_to(depth)
    parsed = parse_measures(measures)
    recalls = {each: f"R@{each}" for each in depths if each}
    grades = {query.query_id: query.grades for query in block}
    scored = {query.query_id: _scored(query, system, depth) for query in block}
    first = {query.query_id: query.retrieved[system].doc_ids for query in block}
    names = list(recalls.values())
    found = per_query(parse_measures(names), names, grades, first)
    sums: dict[tuple[int, str], tuple[float, ...]] = {}
    parts = [_schema(measures).empty_table()]
    for each in depths:
        rankings = {query.query_id: query.cut(system, each) for query in block}
        values = per_query(parsed, measures, grades, rankings)
        columns: dict[str, Sequence[str | float]] = {
            "query_id": list(grades),
            "depth": [each] * len(grades),
            "pairs": [min(each, scored[query]) for query in grades],
            "recall": [found[query][recalls[each]] if each else 0.0 for query in grades],
            **{name: [values[query][name] for query in grades] for name in measures},
        }
        if keep:
            parts.append(pa.table(columns, schema=_schema(measures)))
        for name in ("pairs", "recall", *measures):
            sums[each, name] = _exact(columns[name])  # type: ignore[arg-type]
    return DepthSums(depths, sums, pa.concat_tables(parts))


def depth_study(parts: Sequence[DepthSums], measures: tuple[str, ...], queries: int) -> DepthStudy:
    """The study that the blocks of a run add up to; the first of the measures is the headline.

    ``queries`` is how many count in the means: those that are in no block, because they were
    rejected, score 0.
    """

    def total(depth: int, name: str) -> float:
        return math.fsum(value for part in parts for value in part.sums[depth, name])

    rows = tuple(
        DepthRow(
            depth=depth,
            values={name: total(depth, name) / max(queries, 1) for name in measures},
            recall=total(depth, "recall") / max(queries, 1),
            pairs=round(total(depth, "pairs")),
        )
        for depth in (parts[0].depths if parts else ())
    )
    tables = [_schema(measures).empty_table(), *(part.table for part in parts)]
    return DepthStudy(measures[0], rows, pa.concat_tables(tables))


def _schema(measures: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            ("query_id", pa.string()),
            ("depth", pa.int32()),
            ("pairs", pa.int32()),
            ("recall", pa.float64()),
            *((name, pa.float64()) for name in measures),
        ]
    )


def _exact(values: Sequence[float]) -> tuple[float, float]:
    """A sum and what rounding took from it, so that sums of sums are as exact as one sum."""
    whole = math.fsum(values)
    return whole, math.fsum([*values, -whole])


def _scored(query: JudgedQuery, system: str, depth: int) -> int:
    """How many of the query's candidates were scored: those up to ``depth``, or none."""
    first = set(query.retrieved[system].doc_ids[:depth])
    listed = query.lists[system]
    scored = sum(
        doc_id in first
        for doc_id, score in zip(listed.doc_ids, listed.scores.tolist(), strict=True)
        if not math.isnan(score)
    )
    if 0 < scored < len(first):
        raise InputError(
            f"query {query.query_id} has scores for {scored} of its first {len(first)} "
            "candidates: what a smaller depth would have given is not known"
        )
    return scored


def _and_cost(before: DepthRow, after: DepthRow) -> str:
    return f" and cost{_by(before, after)}" if before.pairs else ""


def _by(before: DepthRow, after: DepthRow) -> str:
    return f" by {100 * after.pairs / before.pairs - 100:.0f} %"
