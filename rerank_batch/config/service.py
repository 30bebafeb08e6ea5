"""The section ``service`` of whatever calls one."""

from pydantic import Field

from rerank_batch.config.base import Section


class ServiceConfig(Section):
    """How a service is called; changes speed, never results."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """What the key allows for the whole job; by default what the service states for everyone."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The same for tokens."""
    documents_per_call: int | None = Field(default=None, ge=1)
    """For a server that takes fewer documents in a call than its family does; a longer list is
    divided."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """How many calls are under way at a time."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """How long an answer may take."""
    attempts: int = Field(default=6, ge=1)
    """How often a call is tried before it counts as failed."""
