"""How many candidates are worth reranking: quality and cost at every depth, from one scored run.

The best d of the first d candidates are known once the first D > d were scored, as long as a score
belongs to its pair alone: so one run answers for every smaller depth and nothing is scored again.
Whether a run's scores are of that kind, the caller must know; a cascade's and a listwise
reranker's are not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.errors import InputError
from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.evaluation.measures import mean, parse_measures, per_query

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


def study_depths(
    blocks: Iterable[Sequence[JudgedQuery]], measures: tuple[str, ...], depth: int, queries: int
) -> DepthStudy:
    """Measure every depth of `DEPTHS` up to ``depth``, which is how many candidates were read.

    The first of the measures is the headline. ``queries`` is how many count in the means: those
    that are not in ``blocks``, because they were rejected, score 0. A query that was gated or fell
    back has no scores: it costs nothing and keeps the order of retrieval at any depth.

    Raises:
        InputError: a query's scores end before ``depth``.
    """
    depths = [0, *(each for each in DEPTHS if each < depth), depth]
    parsed = parse_measures(measures)
    recalls = {each: f"R@{each}" for each in depths if each}
    recall_measures = parse_measures(list(recalls.values()))
    schema = pa.schema(
        [
            ("query_id", pa.string()),
            ("depth", pa.int32()),
            ("pairs", pa.int32()),
            ("recall", pa.float64()),
            *((name, pa.float64()) for name in measures),
        ]
    )
    parts = [schema.empty_table()]
    for block in blocks:
        grades = {query.query_id: query.grades for query in block}
        scored = {query.query_id: _scored(query, depth) for query in block}
        first = {query.query_id: query.retrieval() for query in block}
        found = per_query(recall_measures, list(recalls.values()), grades, first)
        for each in depths:
            rankings = {query.query_id: query.reranked(each) for query in block}
            values = per_query(parsed, measures, grades, rankings)
            columns: list[Sequence[str | float]] = [
                list(rankings),
                [each] * len(rankings),
                [min(each, scored[query]) for query in rankings],
                [found[query][recalls[each]] if each else 0.0 for query in rankings],
                *([values[query][name] for query in rankings] for name in measures),
            ]
            parts.append(pa.table(columns, schema=schema))
    table = pa.concat_tables(parts)
    rows = tuple(_row(table, each, measures, queries) for each in depths)
    return DepthStudy(measures[0], rows, table)


def _row(table: pa.Table, depth: int, measures: tuple[str, ...], queries: int) -> DepthRow:
    part = table.filter(pc.equal(table.column("depth"), depth))
    means = {name: mean(part.column(name).to_pylist(), queries) for name in (*measures, "recall")}
    return DepthRow(
        depth=depth,
        recall=means.pop("recall"),
        values=means,
        pairs=sum(part.column("pairs").to_pylist()),
    )


def _scored(query: JudgedQuery, depth: int) -> int:
    """How many of the query's candidates were scored: those up to ``depth``, or none."""
    scored = [hit["score"] is not None for hit in query.candidates[:depth]]
    if any(scored) and not all(scored):
        raise InputError(
            f"query {query.query_id} has scores for {sum(scored)} of its first {len(scored)} "
            "candidates: what a smaller depth would have given is not known"
        )
    return sum(scored)


def _and_cost(before: DepthRow, after: DepthRow) -> str:
    return f" and cost{_by(before, after)}" if before.pairs else ""


def _by(before: DepthRow, after: DepthRow) -> str:
    return f" by {100 * after.pairs / before.pairs - 100:.0f} %"
