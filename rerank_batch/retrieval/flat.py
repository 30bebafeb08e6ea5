"""Exact search of a Flat shard.

What comes back does not depend on how many shards there are, how many queries a call holds, or
which ones. FAISS computes inner products in float32 blocks whose rounding depends on all of these,
so its hits are a shortlist here: the shortlist is scored again in float64 pair by pair, and widened
until rounding cannot have kept out a document that belongs in it.
"""

import math
from typing import Any

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.retrieval.hits import Hits
from rerank_batch.retrieval.shard_rows import SHORTLIST_EXTRA, ShardRows, Vectors

faiss: Any = _typed_faiss  # its stubs lag behind its library

_RESCORE_BYTES = 64 << 20


class FlatShard:
    """Exact search over a mapped Flat index.

    Rows that are gone are taken out of the shortlist, which is widened until it is full: with a
    selector FAISS would search row by row and not by matrix products.
    """

    def __init__(self, index: Any, rows: ShardRows) -> None:
        self._index = index
        self._rows = rows
        floats = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._stored: Vectors = floats.reshape(index.ntotal, index.d)
        # |float32 sum - exact sum| <= n·u·|x||y| (Higham, Accuracy and Stability, 2nd ed., eq. 3.5)
        self._rounding = index.d * 2.0**-23

    def search(self, vectors: Vectors, k: int) -> Hits:
        """See `Shard.search`."""
        k = min(k, self._rows.live)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        documents = np.full((len(vectors), k), ranking.PAD, dtype=np.int64)
        todo = np.arange(len(vectors) if k else 0)
        width = math.ceil(k / self._rows.share) + SHORTLIST_EXTRA if k else 0
        while len(todo):
            width = min(width, self._index.ntotal)
            queries = np.ascontiguousarray(vectors[todo], dtype=np.float32)
            rough, rows = self._index.search(queries, width)
            numbers = self._rows.documents(rows)
            exact = np.where(numbers == ranking.PAD, -np.inf, self._rescore(queries, rows))
            scores[todo], documents[todo] = ranking.top_k(
                exact.astype(np.float32, copy=False), numbers, k
            )
            if width == self._index.ntotal:
                break
            # A document outside the shortlist scored at most the shortlist's worst by FAISS.
            missed_at_most = rough[:, -1] + 2 * self._rounding * np.linalg.norm(queries, axis=1)
            todo = todo[scores[todo, -1] <= missed_at_most]
            width *= 4
        return Hits(scores, documents)

    def _rescore(self, vectors: Vectors, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products of queries [n, d] and their hits [n, w] in float64, one pair at a time."""
        exact = np.empty(rows.shape, dtype=np.float32)
        step = max(1, _RESCORE_BYTES // (8 * rows.shape[1] * vectors.shape[1]))
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            stored = self._stored[rows[part]].astype(np.float64)
            exact[part] = (stored * vectors[part, None, :].astype(np.float64)).sum(axis=-1)
        return exact
