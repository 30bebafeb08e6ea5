"""The section ``service`` of whatever calls one."""

from pydantic import Field

from rerank_batch.config.base import Section


class ServiceConfig(Section):
    """How a reranking service is called; changes speed, never results.

    ``requests_per_minute`` and ``tokens_per_minute`` are what the key allows, for the whole job;
    by default what the service states for everyone. ``documents_per_call`` is for a server that
    takes fewer documents in a call than its family does; a longer list is divided.
    """

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    documents_per_call: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout_seconds: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=6, ge=1)
