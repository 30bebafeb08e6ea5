"""The score loop: models read the best candidates of every query, one model after the other.

Used for one cascade over a block of queries, and for the cascades of several systems over the same
block. Knows no family of models, and nothing of what opens one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema, tally
from rerank_batch.data.text_store import TextStore
from rerank_batch.progress import pairs as progress
from rerank_batch.ranking import Documents, Scores
from rerank_batch.rerankers.base import PairScorer, QueryScores


@dataclass
class QueryCandidates:
    """The candidates of a query, and float32 [1 + stages, n] scores so far, retrieval's first."""

    documents: Documents
    scores: Scores


class Block:
    """The queries of a table while models read their candidates."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.queries: list[str] = table.column(schema.QUERY).to_pylist()
        self.rejects: list[str | None] = table.column(schema.REJECT).to_pylist()
        self.flags = [set(each) for each in table.column(schema.FLAGS).to_pylist()]

    def to_read(
        self,
        candidates: Sequence[QueryCandidates],
        depth: int | None,
        flag: Callable[[str], str] = str,
    ) -> list[NDArray[np.int64]]:
        """Of every query the positions of the candidates that the next model reads, best first.

        None of a query that is rejected or gated. ``flag`` gives the name of a flag in this block.
        """
        return [
            ranking.NO_DOCUMENTS
            if reject is not None or flag(schema.GATED) in flags
            else ranking.cascade_order(each.scores, each.documents)[:depth]
            for each, reject, flags in zip(candidates, self.rejects, self.flags, strict=True)
        ]

    def add_stage(
        self,
        candidates: Sequence[QueryCandidates],
        positions: Sequence[NDArray[np.int64]],
        scored: Sequence[QueryScores],
        flag: Callable[[str], str] = str,
    ) -> None:
        """Add the scores of a model to the candidates that it read, and note what went wrong."""
        for row, (each, read, new) in enumerate(zip(candidates, positions, scored, strict=True)):
            values = np.full(len(each.documents), np.nan, np.float32)
            if new.fell_back:
                self.flags[row].add(flag(schema.FELL_BACK))
            elif not np.isfinite(new.values).all():
                self.rejects[row] = schema.NON_FINITE_SCORE
            else:
                values[read] = new.values
            if new.truncated.any():
                self.flags[row].add(flag(schema.TRUNCATED))
            each.scores = np.vstack([each.scores, values])

    def table(self) -> pa.Table:
        """The table with the rejects and flags as they are now."""
        rejects = pa.array(self.rejects, pa.string())
        flags = pa.array([sorted(each) for each in self.flags], pa.list_(pa.string()))
        table = schema.replace_column(self._table, schema.REJECT, rejects)
        return schema.replace_column(table, schema.FLAGS, flags)


class Reader:
    """An open model of the cascade: reads the texts of pairs, counts them and takes the time."""

    def __init__(self, number: int, scorer: PairScorer, texts: TextStore) -> None:
        self._number = number
        self._scorer = scorer
        self._texts = texts

    def score(self, queries: Sequence[str], documents: Sequence[Documents]) -> list[QueryScores]:
        """The scores of ``documents[i]`` for ``queries[i]``."""
        texts = contents_of(self._texts, documents)
        count = sum(map(len, documents))
        tally.add(pairs_of(self._number), float(count))
        began = time.perf_counter()
        with progress.reading(self._number, count):
            scored = self._scorer.score(queries, texts)
        tally.add(seconds_of(self._number), time.perf_counter() - began)
        return [scored.of_query(row) for row in range(len(documents))]


def contents_of(texts: TextStore, documents: Sequence[Documents]) -> list[list[str]]:
    """The texts of the documents of every query; each distinct one is read once."""
    distinct, parts = ranking.distinct(documents)
    contents = texts.contents(distinct)
    return [[contents[place] for place in part] for part in parts]


def pairs_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs a stage of the cascade got to read."""
    return f"pairs.{stage}"


def skipped_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs the gate kept from a stage of the cascade."""
    return f"skipped.{stage}"


def seconds_of(stage: int) -> str:
    """The name of a sum of the run: how long a stage of the cascade took."""
    return f"seconds.{stage}"
