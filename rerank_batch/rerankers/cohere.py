"""Cohere's reranker: https://docs.cohere.com/reference/rerank.

Scores lie between 0 and 1; it offers no raw ones. Billed by search units: one query with up to a
hundred documents, more where the service splits long ones.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import HttpScorer, ServiceLimits
from rerank_batch.services.usage import Usage, count_at

_DOCUMENTS_A_UNIT = 100


class CohereScorer(HttpScorer):
    """``POST /v2/rerank``; 1,000 documents a call are advised."""

    family = "cohere"
    path = "/v2/rerank"
    limits = ServiceLimits(documents=1000, characters=10_000, requests_per_minute=1000)

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {"model": self.model, "query": query, "documents": documents}

    def expected(self, query: str, documents: Sequence[str]) -> Usage:
        """See `HttpScorer.expected`."""
        return Usage(search_units=math.ceil(len(documents) / _DOCUMENTS_A_UNIT))

    def billed(self, answer: Any) -> Usage | None:
        """See `HttpScorer.billed`."""
        units = count_at(answer, "meta", "billed_units", "search_units")
        return None if units is None else Usage(search_units=units)
