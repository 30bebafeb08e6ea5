"""The section ``guards``."""

from typing import Annotated

from pydantic import Field, model_validator

from rerank_batch.config.base import RowsOrShare, Section


class GuardsConfig(Section):
    """What a finished run must be for readers to get it; changes no results.

    A run that fails one is complete and stays unpublished: latest.json names the run before.
    ``max_rejects`` is a number of log rows or a share of them, as in ``limits``, which stops a run
    on its way. ``min_overlap_at_10``: of a query's first ten documents the share that the last
    published run had as well, in the mean over the queries of both. ``min_queries`` and
    ``max_queries`` bound how many queries have results. ``measure`` are floors of the run's own
    means over its judged queries, by the names in ``evaluation.measures``.
    """

    max_rejects: RowsOrShare | None = None
    min_overlap_at_10: float | None = Field(default=None, ge=0, le=1)
    min_queries: int | None = Field(default=None, ge=0)
    max_queries: int | None = Field(default=None, ge=0)
    measure: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "GuardsConfig":
        low, high = self.min_queries, self.max_queries
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_queries ({low}) is more than max_queries ({high})")
        return self
