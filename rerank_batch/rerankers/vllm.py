"""A reranker that vLLM serves: https://docs.vllm.ai/en/latest/models/pooling_models.

Scores are raw logits where the server knows ``use_activation``, which it has since 0.11; before,
they are as its model's configuration says. It counts tokens and bills nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.rerankers.http import ServiceLimits, TokenBilledScorer


class VllmScorer(TokenBilledScorer):
    """``POST /v1/rerank``; it states no limit of documents, so that a call stays a reasonable one.

    ``truncate_prompt_tokens`` -1 cuts a pair to what the model reads, else it would be refused.
    """

    family = "vllm"
    path = "/v1/rerank"
    limits = ServiceLimits(documents=1000, characters=8_000)

    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """See `HttpScorer.body`."""
        return {
            "model": self.model,
            "query": query,
            "documents": documents,
            "truncate_prompt_tokens": -1,
            "use_activation": False,
        }
