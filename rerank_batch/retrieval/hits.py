"""What searches give back; knows neither FAISS nor BM25."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking


@dataclass(frozen=True)
class Hits:
    """``scores`` float32 [n, k] and ``documents`` int64 [n, k], best first, padded with -1."""

    scores: NDArray[np.float32]
    documents: NDArray[np.int64]


@dataclass(frozen=True)
class RankedList:
    """What one source gives for one query: int64 documents and float32 scores, best first."""

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]

    def first(self, depth: int) -> "RankedList":
        """Its best ``depth`` documents."""
        return RankedList(self.documents[:depth], self.scores[:depth])


NO_HITS = RankedList(ranking.NO_DOCUMENTS, np.empty(0, np.float32))


def ranked_lists(hits: Hits) -> list[RankedList]:
    """The hits of each query without the padding."""
    rows = zip(hits.documents, hits.scores, strict=True)
    return [RankedList(d[d != ranking.PAD], s[d != ranking.PAD]) for d, s in rows]
