"""Batch, offline retrieve-then-rerank on Ray Data."""
