"""What a stage is: Arrow table in, Arrow table out, one row per query throughout.

A stage opens its models and files when it is constructed, inside the process that will run it. It
keeps the order and number of its rows. A query that cannot go on carries a reason in ``reject`` and
travels with empty lists, so that the end of the pipeline can account for it. Knows nothing of Ray.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from rerank_batch.pipeline.pools import Pool


class Stage(Protocol):
    """What every stage is, once constructed."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """The same rows with more columns."""


@dataclass(frozen=True)
class StageSpec:
    """A stage that is not running yet: its class, what to construct it with, and where.

    ``batch_size`` None hands over whole blocks. Ray insists on a number for GPU pools: the block
    size, which cuts only the last block, the one that takes the remainder, always the same way.
    ``actor`` names the actors that it shares with its neighbours, if it does; one that is ``alone``
    never may: it is there once for the whole job, or opens as much as a node can hold.
    """

    name: str
    stage: type
    kwargs: Mapping[str, Any]
    pool: Pool
    output: pa.Schema
    batch_size: int | None = None
    alone: bool = False
    actor: str | None = None
