"""The section ``cache``."""

from pydantic import Field

from rerank_batch.config.base import Section


class CacheConfig(Section):
    """The score cache; changes no results.

    A pair that a model scored before in the same mode is not scored again by any job of the root.
    """

    enabled: bool = True
    """Whether scores are looked up and kept."""
    max_age: int | None = Field(default=90, ge=1)
    """The age in days from which on scores are dropped."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Beyond this size the oldest scores are dropped."""
