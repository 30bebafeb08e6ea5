"""A reranker that Infinity serves: https://michaelfeil.github.io/infinity.

Scores are raw logits. It counts tokens and bills nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import ServiceLimits, TokenBilledScorer


class InfinityScorer(TokenBilledScorer):
    """``POST /rerank``; 2,048 documents a call."""

    family = "infinity"
    path = "/rerank"
    limits = ServiceLimits(documents=2048, characters=8_000)

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "model": self.model,
            "query": query,
            "documents": documents,
            "return_documents": False,
            "raw_scores": True,
        }
