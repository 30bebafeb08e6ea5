"""Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference.

Scores are raw logits. A server has one model, so the name of it is not sent; it bills nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import HttpScorer, ServiceLimits


class TeiScorer(HttpScorer):
    """``POST /rerank``; 32 documents a call is what a server takes unless it was told otherwise."""

    family = "tei"
    path = "/rerank"
    limits = ServiceLimits(documents=32, characters=8_000)
    results = None

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "query": query,
            "texts": documents,
            "truncate": True,
            "raw_scores": True,
            "return_text": False,
        }
