"""Jina's reranker: https://api.jina.ai/redoc.

Scores are as the model gives them; there is no choice. Billed by tokens, as at Voyage. Of
the listwise jina-reranker-v3 a score depends on the other documents of the call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import ServiceLimits, TokenBilledScorer


class JinaScorer(TokenBilledScorer):
    """``POST /v1/rerank``; a blank is sent for an empty document, as some services refuse those."""

    family = "jina"
    path = "/v1/rerank"
    limits = ServiceLimits(documents=1000, characters=10_000, requests_per_minute=500)
    empty = " "

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "model": self.model,
            "query": query,
            "documents": documents,
            "return_documents": False,
        }
