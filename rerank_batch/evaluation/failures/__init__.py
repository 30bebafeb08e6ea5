"""Queries that the reranker made worse, and what they share."""
