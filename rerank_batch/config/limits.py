"""The section ``limits``."""

from rerank_batch.config.base import RowsOrShare, Section


class LimitsConfig(Section):
    """When a run has gone wrong wholesale, and stops."""

    max_rejects: RowsOrShare = 0.2
    """How many rows of the log may be rejected: a number, or a share if below 1."""
