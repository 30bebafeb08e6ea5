"""The section ``compute``."""

from typing import Annotated, Literal

from pydantic import Field

from rerank_batch.config.base import AUTO_OR_COUNT, Section

PoolSize = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], AUTO_OR_COUNT]


class ComputeConfig(Section):
    """Actor pools and machine size; changes speed, never results, except ``block_rows``.

    ``block_rows`` is how many queries travel, are scored and are committed together. It is derived
    from the number of queries alone, so that results do not depend on the machine.
    ``index_memory_gb`` is what a node may hold of an index; of a larger one the shards are divided
    into groups that are searched one after the other, each by actors of its own. ``auto`` is half
    of the smallest node's memory. ``connect_seconds`` is how long a cluster at ``address`` may take
    to answer.
    """

    encoders: PoolSize = "auto"
    retrievers: PoolSize = "auto"
    scorers: PoolSize = "auto"
    block_rows: PoolSize = "auto"
    cpus: PoolSize = "auto"
    gpus: Annotated[Literal["auto"] | Annotated[int, Field(ge=0)], AUTO_OR_COUNT] = "auto"
    address: str | None = None
    connect_seconds: float = Field(default=30.0, gt=0)
    object_store_mb: int = Field(default=512, ge=80)
    index_memory_gb: Annotated[Literal["auto"] | Annotated[float, Field(gt=0)], AUTO_OR_COUNT] = (
        "auto"
    )
