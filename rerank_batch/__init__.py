"""Batch, offline retrieve-then-rerank on Ray Data."""

from rerank_batch.workflows.open_results import Results, open_results

__all__ = ["Results", "open_results"]
