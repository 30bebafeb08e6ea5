"""Retrieval against reranked, query by query, from the rows of a finished run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.evaluation.measures import PerQuery, mean, parse_measures, per_query
from rerank_batch.qrels import Qrels, merge_grades
from rerank_batch.storage import open_file

METRICS = pa.schema(
    [
        ("query_id", pa.string()),
        ("weight", pa.float64()),
        ("system", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)
"""Per-query metrics: one row per query, system and measure."""


@dataclass(frozen=True)
class Comparison:
    """Values per query of both systems, with what the queries say and weigh.

    ``retrieval`` and ``reranked`` hold the same queries: every judged query of the run, and with
    zeros every judged query that was rejected.
    """

    measures: tuple[str, ...]
    retrieval: PerQuery
    reranked: PerQuery
    texts: dict[str, str]
    weights: dict[str, float]

    def values(self, system: str, measure: str) -> list[float]:
        """One value per query, in the order of the query ids."""
        table: PerQuery = getattr(self, system)
        return [table[query][measure] for query in sorted(table)]

    def gains(self, measure: str) -> list[float]:
        """Reranked minus retrieval, one value per query, in the order of the query ids."""
        before, after = (self.values(system, measure) for system in ("retrieval", "reranked"))
        return [new - old for old, new in zip(before, after, strict=True)]

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the queries."""
        return {
            system: {
                name: mean(self.values(system, name), len(self.retrieval)) for name in self.measures
            }
            for system in ("retrieval", "reranked")
        }

    def table(self) -> pa.Table:
        """Per-query values in the long form of `METRICS`."""
        rows = [
            {
                "query_id": query,
                "weight": self.weights.get(query, 0.0),
                "system": system,
                "measure": name,
                "value": getattr(self, system)[query][name],
            }
            for query in sorted(self.retrieval)
            for system in ("retrieval", "reranked")
            for name in self.measures
        ]
        return pa.Table.from_pylist(rows, schema=METRICS)


def compare(
    paths: Sequence[str],
    qrels: Qrels,
    rejected: Collection[str],
    measures: tuple[str, ...],
) -> Comparison:
    """Measure both rankings of every judged query in the result files ``paths``.

    Both rankings have full depth: the reranked one is every candidate by its place in
    the reranked order.
    ``rejected`` are the ids of judged queries that were rejected; an id that is also the id of a
    written query (the log held it twice, once damaged) counts as written.
    """
    parsed = parse_measures(measures)
    retrieval: PerQuery = {}
    reranked: PerQuery = {}
    texts: dict[str, str] = {}
    weights: dict[str, float] = {}
    planned: set[str] = set()
    columns = ["query_id", "query_ids", "query", "weight", "candidates"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(batch_size=1024, columns=columns):
            rows = {row["query_id"]: row for row in batch.to_pylist()}
            planned.update(alias for row in rows.values() for alias in row["query_ids"])
            grades = {
                query: merged
                for query, row in rows.items()
                if (merged := merge_grades(qrels, row["query_ids"])) is not None
            }
            first = {
                query: [hit["doc_id"] for hit in rows[query]["candidates"]] for query in grades
            }
            second = {query: _by_rank(rows[query]["candidates"]) for query in grades}
            retrieval |= per_query(parsed, measures, grades, first)
            reranked |= per_query(parsed, measures, grades, second)
            texts |= {query: rows[query]["query"] for query in grades}
            weights |= {query: rows[query]["weight"] for query in grades}
    for query in set(rejected) - planned:
        retrieval[query] = dict.fromkeys(measures, 0.0)
        reranked[query] = dict.fromkeys(measures, 0.0)
        texts[query] = ""
    return Comparison(measures, retrieval, reranked, texts, weights)


def _by_rank(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids in the reranked order."""
    return [hit["doc_id"] for hit in sorted(candidates, key=lambda hit: hit["rank"])]
