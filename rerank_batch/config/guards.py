"""The section ``guards``."""

from typing import Annotated

from pydantic import Field, model_validator

from rerank_batch.config.base import RowsOrShare, Section


class GuardsConfig(Section):
    """What a finished run must be for readers to get it; changes no results.

    A run that fails one is complete and stays unpublished: latest.json names the run before.
    """

    max_rejects: RowsOrShare | None = None
    """How many rows of the log may be rejected, as in limits, which stops a run on its way."""
    min_overlap_at_10: float | None = Field(default=None, ge=0, le=1)
    """The share of a query's first ten documents that the last published run had as well, in the
    mean over the queries of both."""
    min_queries: int | None = Field(default=None, ge=0)
    """How many queries have results at least."""
    max_queries: int | None = Field(default=None, ge=0)
    """How many queries have results at most."""
    measure: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})
    """Floors of the run's own means over its judged queries, by the names in evaluation.measures.
    """

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "GuardsConfig":
        low, high = self.min_queries, self.max_queries
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_queries ({low}) is more than max_queries ({high})")
        return self
