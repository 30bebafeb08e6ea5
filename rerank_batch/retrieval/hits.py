"""What searches give back; knows neither FAISS nor BM25."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hits:
    """``scores`` float32 [n, k] and ``documents`` int64 [n, k], best first, padded with -1."""

    scores: NDArray[np.float32]
    documents: NDArray[np.int64]


@dataclass(frozen=True)
class RankedList:
    """What one source found for one query: int64 documents and float32 scores, best first."""

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]

    def first(self, depth: int) -> "RankedList":
        """Its best so many."""
        return RankedList(self.documents[:depth], self.scores[:depth])
