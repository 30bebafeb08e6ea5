"""Batch, offline retrieve-then-rerank on Ray Data."""

from rerank_batch.run import latest_files

__all__ = ["latest_files"]
