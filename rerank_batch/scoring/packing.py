"""Cutting a window of texts into micro-batches of similar length under a token budget.

A padded batch costs its longest member times its size. Sorting by token length before cutting
keeps that close to the tokens there are; the budget keeps memory flat whatever the lengths.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def micro_batches(
    lengths: Sequence[int] | NDArray[np.int64], budget: int
) -> Iterator[NDArray[np.int64]]:
    """Positions of each micro-batch, longest first, ``longest * size <= budget``.

    A text longer than the budget travels alone. Equal lengths keep their order, so the same window
    is always cut the same way.
    """
    lengths = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
    positions = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(positions):
        longest = int(lengths[positions[start]])
        size = max(1, budget // longest)
        yield positions[start : start + size]
        start += size
