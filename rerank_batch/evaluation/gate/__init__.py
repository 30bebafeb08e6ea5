"""The gate: which queries can skip the reranker, and at what price."""
