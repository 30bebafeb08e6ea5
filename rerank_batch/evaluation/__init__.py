"""How good the rankings are, with and without the reranker."""
