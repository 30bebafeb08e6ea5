"""Cutting a window of texts into micro-batches of similar length under a token budget.

A padded batch costs its longest member times its size. Sorting by token length before cutting
keeps that close to the tokens there are, and cutting wherever the length changes makes it exactly
those; the budget keeps memory flat whatever the lengths.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rerank_batch import tally

logger = logging.getLogger(__name__)


class TokenBudget:
    """How many tokens one forward pass may hold, padding included.

    ``tokens`` None: enough to fill a GPU, few enough to stay in a CPU's cache. Where memory runs
    out the budget is halved, for the rest of this process, and the same texts are tried again.
    """

    def __init__(self, tokens: int | None, device: str = "cpu") -> None:
        self.tokens = tokens or (65_536 if device == "cuda" else 2048)
        self._real = self._padded = 0

    def each(
        self,
        lengths: Sequence[int] | NDArray[np.int64],
        forward: Callable[[NDArray[np.int64]], None],
        even: bool = False,
    ) -> None:
        """Call ``forward`` with the positions of each micro-batch, longest texts first.

        ``longest * size <= tokens``; a text longer than the budget travels alone. ``even`` gives
        batches of one length each. Equal lengths keep their order, so the same window is always
        cut the same way.

        Raises:
            MemoryError, torch.OutOfMemoryError: one text alone is too much.
        """
        lengths = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
        tally.add(tally.TOKENS, float(lengths.sum()))
        positions = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(positions):
            longest = int(lengths[positions[start]])
            size = max(1, self.tokens // longest)
            batch = positions[start : start + size]
            if even:
                batch = batch[lengths[batch] == longest]
            try:
                forward(batch)
            except (MemoryError, RuntimeError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                self._halve(longest * len(batch))
                continue
            self._real += int(lengths[batch].sum())
            self._padded += longest * len(batch)
            padding = longest * len(batch) - int(lengths[batch].sum())
            if padding:
                tally.add(tally.PADDED, float(padding))
            start += len(batch)

    def padding(self) -> float:
        """The share of all tokens so far that would be padding, were every batch padded."""
        return 1 - self._real / max(self._padded, 1)

    def _halve(self, requested: int) -> None:
        """Below what was asked for, which a short last batch may have been far under."""
        self.tokens = max(1, min(self.tokens, requested) // 2)
        logger.warning("out of memory: the token budget is halved to %d", self.tokens)
        tally.count(f"out of memory: token budget halved to {self.tokens}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's allocator for CPUs raises a plain RuntimeError.
    return "DefaultCPUAllocator" in str(error)
