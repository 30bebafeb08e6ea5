"""How good a model is on labelled queries: it ranks each query's own candidates, by our measures.

Knows measures and scores, no model library. The candidates are the query's label rows, so that a
value says how well positives stand above mined negatives, not what a whole retrieval run gives.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.evaluation.measures import parse_measures, per_query
from rerank_batch.training.labels import LabelledQuery

Scores = Sequence[NDArray[np.float32]]
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Scores]
"""Queries and the documents of each in, an array of scores for each out."""


class DevQueries:
    """Labelled queries to measure models on, at most ``most`` of them, evenly chosen."""

    def __init__(
        self,
        queries: Sequence[LabelledQuery],
        texts: Sequence[str],
        measure: str,
        most: int | None = None,
    ) -> None:
        queries = [query for query in queries if query.positive.any()]
        if most is not None and len(queries) > most:
            queries = [queries[n * len(queries) // most] for n in range(most)]
        self.measure = measure
        self._parsed = parse_measures([measure])
        self.queries = queries
        self.texts = [query.text for query in queries]
        self.documents = [[texts[n] for n in query.documents] for query in queries]

    @property
    def pairs(self) -> int:
        """Pairs of query and document that measuring a model scores."""
        return sum(map(len, self.documents))

    def of_model(self, score: Score) -> dict[str, float]:
        """Query id -> measure of a model's ranking."""
        return self.of_scores(score(self.texts, self.documents))

    def of_retrieval(self) -> dict[str, float] | None:
        """The same of the order in which documents were found; None where no row has a rank.

        A document that was not found stands behind those that were.
        """
        if all(np.isnan(query.ranks).all() for query in self.queries):
            return None
        return self.of_scores(
            [np.where(np.isnan(query.ranks), -np.inf, -query.ranks) for query in self.queries]
        )

    def of_scores(self, scores: Scores) -> dict[str, float]:
        """Query id -> measure of the ranking by scores, ties broken by document id."""
        rankings, qrels = {}, {}
        for query, values in zip(self.queries, scores, strict=True):
            best = ranking.order(values, np.arange(len(values)))
            rankings[query.query_id] = [query.doc_ids[n] for n in best]
            qrels[query.query_id] = query.grades()
        found = per_query(self._parsed, [self.measure], qrels, rankings)
        return {query_id: values[self.measure] for query_id, values in found.items()}


def average(values: Mapping[str, float]) -> float:
    """The mean over queries, of which there is one at least, exactly rounded."""
    return math.fsum(values.values()) / len(values)
