"""The section ``cache``."""

from pydantic import Field

from rerank_batch.config.base import Section


class CacheConfig(Section):
    """The score cache: a pair that was scored before, by the same model in the same mode, is not
    scored again by any job of the root; changes no results.

    ``max_age`` is in days: older scores are dropped. Beyond ``max_bytes`` the oldest are.
    """

    enabled: bool = True
    max_age: int | None = Field(default=90, ge=1)
    max_bytes: int | None = Field(default=None, ge=1)
