"""How many queries a block holds."""

from rerank_batch.config import Config

_BLOCKS = 64
_SMALLEST_BLOCK, _LARGEST_BLOCK = 256, 4096


def rows_per_block(config: Config, queries: int) -> int:
    """Queries per block: a fixed number, or about 64 blocks of a size that batches well.

    Depends on the number of queries alone, never on the machine, so that results do not either.
    """
    if config.compute.block_rows != "auto":
        return config.compute.block_rows
    return min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, queries // _BLOCKS))
