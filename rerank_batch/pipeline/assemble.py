"""The last stage of a run: document numbers and scores become result rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema
from rerank_batch.data.qrels import Qrels, merge_grades
from rerank_batch.index.open import Index
from rerank_batch.schema import TableRow


class AssembleResults:
    """Turns document numbers and scores into the result rows, with measures where there are
    judgements."""

    def __init__(
        self,
        index: Index,
        top_k: int,
        measures: tuple[str, ...],
        qrels: Qrels | None,
        stages: int = 1,
        threads: int = 1,
    ) -> None:
        self._texts = index.texts()
        self._top_k = top_k
        self._stages = stages
        self._measures = measures
        self._qrels = qrels or {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """RERANKED, or RETRIEVED without a reranker, in; ``schema.results`` and ``reject`` out."""
        documents = schema.lists_in(table, schema.DOCUMENTS, np.int64)
        scores = schema.stage_scores(table)
        distinct, parts = ranking.distinct(documents)
        names = np.array(self._texts.ids(distinct), dtype=object)
        ids = [names[part].tolist() for part in parts]
        rejected = [reason is not None for reason in table.column(schema.REJECT).to_pylist()]
        results, candidates, orders = [], [], []
        for row in range(table.num_rows):
            if rejected[row]:
                ids[row], documents[row], scores[row] = [], documents[row][:0], scores[row][:, :0]
            best = ranking.cascade_order(scores[row], documents[row])
            orders.append(best)
            results.append(self._results(ids[row], scores[row], best))
            candidates.append(self._candidates(ids[row], scores[row], best))
        output = schema.results(self._measures, self._stages)
        metrics = self._metrics(table, ids, orders)
        table = table.select([*schema.PLAN.names, schema.REJECT])
        for name, column in (
            ("results", results),
            ("candidates", candidates),
            ("metrics", metrics),
        ):
            table = table.append_column(name, pa.array(column, output.field(name).type))
        return table

    def _results(
        self, ids: list[str], scores: ranking.Scores, best: NDArray[np.int64]
    ) -> list[TableRow]:
        last = ranking.deepest(scores)
        return [
            {
                "doc_id": ids[position],
                "rank": rank,
                "score": float(last[position]),
                "retrieval_rank": int(position) + 1,
                "retrieval_score": float(scores[0, position]),
            }
            for rank, position in enumerate(best[: self._top_k], start=1)
        ]

    def _candidates(
        self, ids: list[str], scores: ranking.Scores, best: NDArray[np.int64]
    ) -> list[TableRow]:
        ranks = np.empty(len(best), dtype=np.int64)
        ranks[best] = np.arange(1, len(best) + 1)
        read = np.atleast_1d(~np.isnan(scores[1:]).all(axis=0))
        last = ranking.deepest(scores)
        rows: list[TableRow] = []
        for position, doc_id in enumerate(ids):
            row: TableRow = {
                "doc_id": doc_id,
                "retrieval_score": float(scores[0, position]),
                "rank": int(ranks[position]),
                "score": float(last[position]) if read[position] else None,
            }
            if self._stages > 1:
                row["stage_scores"] = schema.nullable(scores[1:, position])
            rows.append(row)
        return rows

    def _metrics(
        self, table: pa.Table, ids: list[list[str]], orders: list[NDArray[np.int64]]
    ) -> list[TableRow | None]:
        reranked = [
            [listed[position] for position in best]
            for listed, best in zip(ids, orders, strict=True)
        ]
        rankings = dict(zip(schema.SYSTEMS, (ids, reranked), strict=True))
        return metrics_of(table, self._measures, self._qrels, rankings)


def metrics_of(
    table: pa.Table,
    measures: tuple[str, ...],
    qrels: Qrels,
    rankings: Mapping[str, Sequence[Sequence[str]]],
) -> list[TableRow | None]:
    """Of every row what the measures make of each system's ranking; None without judgements.

    ``rankings`` are document ids by system, row by row.
    """
    from rerank_batch.evaluation.measures import parse_measures, per_query

    ids = table.column("query_id").to_pylist()
    grades = {
        query: merged
        for query, aliases in zip(ids, table.column("query_ids").to_pylist(), strict=True)
        if (merged := merge_grades(qrels, aliases)) is not None
    }
    parsed = parse_measures(measures)
    values = {
        system: per_query(parsed, measures, grades, dict(zip(ids, listed, strict=True)))
        for system, listed in rankings.items()
    }
    return [
        {system: values[system][query] for system in rankings} if query in grades else None
        for query in ids
    ]
