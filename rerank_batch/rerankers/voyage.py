"""Voyage's reranker: https://docs.voyageai.com/reference/reranker-api.

Scores lie between 0 and 1; it offers no raw ones. Billed by tokens: those of the query once for
each document, and those of the documents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import ServiceLimits, TokenBilledScorer


class VoyageScorer(TokenBilledScorer):
    """``POST /v1/rerank``; it refuses an empty document, so a blank is sent, which it takes."""

    family = "voyage"
    path = "/v1/rerank"
    limits = ServiceLimits(
        documents=1000,
        characters=10_000,
        tokens=600_000,
        requests_per_minute=2000,
        tokens_per_minute=2_000_000,
    )
    results = "data"
    empty = " "

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "model": self.model,
            "query": query,
            "documents": documents,
            "return_documents": False,
            "truncation": True,
        }
