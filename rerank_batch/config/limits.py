"""The section ``limits``."""

from rerank_batch.config.base import RowsOrShare, Section


class LimitsConfig(Section):
    """When a run has gone wrong wholesale.

    ``max_rejects`` is a number of log rows, or a share of them if below 1.
    """

    max_rejects: RowsOrShare = 0.2
