"""A reranker that Infinity serves: https://michaelfeil.github.io/infinity.

Scores are raw logits. It counts tokens and bills nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.service import HttpScorer, Limits, count_at, pair_tokens
from rerank_batch.services.spending import Usage


class InfinityScorer(HttpScorer):
    """``POST /rerank``; 2,048 documents a call."""

    family = "infinity"
    path = "/rerank"
    limits = Limits(documents=2048, characters=8_000)

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "model": self.model,
            "query": query,
            "documents": documents,
            "return_documents": False,
            "raw_scores": True,
        }

    def expected(self, query: str, documents: Sequence[str]) -> Usage:
        """See `HttpScorer.expected`."""
        return Usage(tokens=pair_tokens(query, documents))

    def billed(self, answer: Any) -> Usage | None:
        """See `HttpScorer.billed`."""
        tokens = count_at(answer, "usage", "total_tokens")
        return None if tokens is None else Usage(tokens=tokens)
