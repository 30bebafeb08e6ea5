"""The section ``compute``."""

from typing import Annotated, Literal

from pydantic import Field

from rerank_batch.config.base import AUTO_OR_COUNT, Explained, Section

PoolSize = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], AUTO_OR_COUNT]


class ComputeConfig(Section):
    """Actor pools and machine size; changes speed, never results, except ``block_rows``."""

    encoders: PoolSize = "auto"
    """How many actors encode queries."""
    retrievers: PoolSize = "auto"
    """How many actors search."""
    scorers: PoolSize = "auto"
    """How many actors score."""
    block_rows: PoolSize = "auto"
    """How many queries travel, are scored and are committed together. auto depends on the number of
    queries alone, so that results do not depend on the machine."""
    cpus: PoolSize = "auto"
    """How many CPUs the job takes."""
    gpus: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0)],
        Explained("'auto' or a whole number of at least 0"),
    ] = "auto"
    """How many GPUs the job takes."""
    address: str | None = None
    """The cluster to join; by default one is started here."""
    connect_seconds: float = Field(default=30.0, gt=0)
    """How long a cluster at address may take to answer."""
    object_store_mb: int = Field(default=512, ge=80)
    """The memory of the object store of a cluster that is started here."""
    index_memory_gb: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0)],
        Explained("'auto' or a number above 0"),
    ] = "auto"
    """What a node may hold of an index; a larger one is searched in groups of shards, each by
    actors of its own. auto is half of the smallest node's memory."""
