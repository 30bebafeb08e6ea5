"""The rows of a shard and the documents that they hold, with those that are gone."""

from typing import Any

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking

faiss: Any = _typed_faiss  # its stubs lag behind its library

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]
"""Of every row of a shard the number of its document, -1 where that is gone."""

SHORTLIST_EXTRA = 16
"""How many rows more than wanted are searched first where some may have to be left out."""


class ShardRows:
    """Which documents the rows of a shard hold."""

    def __init__(self, rows: int, first: int, numbers: Numbers | None) -> None:
        self._first, self._numbers = first, numbers
        self.live = rows if numbers is None else int(np.count_nonzero(numbers != ranking.PAD))
        self.is_masked = self.live < rows
        self.share = self.live / max(rows, 1)

    def documents(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The documents in rows, -1 for one that is gone and for the row -1."""
        if self._numbers is None:
            return np.where(rows == ranking.PAD, ranking.PAD, rows + self._first)
        return np.where(rows == ranking.PAD, ranking.PAD, self._numbers[rows])

    def selector(self) -> Any:
        """The rows that are not gone, for FAISS; None where none is."""
        if not self.is_masked:
            return None
        bits = np.packbits(np.asarray(self._numbers) != ranking.PAD, bitorder="little")
        return faiss.IDSelectorBitmap(bits)
