"""Search of the approximate kinds of shards: HNSW, IVF and the others of FAISS."""

import math
from dataclasses import dataclass
from typing import Any

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.retrieval import ivf
from rerank_batch.retrieval.hits import Hits
from rerank_batch.retrieval.shard_rows import SHORTLIST_EXTRA, ShardRows, Vectors

faiss: Any = _typed_faiss  # its stubs lag behind its library


@dataclass(frozen=True)
class SearchOptions:
    """How hard the approximate kinds look: IVF lists probed, HNSW beam width.

    Without ``by_lists`` IVF is never searched list by list, to measure what that is worth.
    """

    nprobe: int | None = None
    ef_search: int | None = None
    by_lists: bool = True


class ApproximateShard:
    """HNSW, IVF and other kinds: FAISS's own hits and scores, in the total order.

    HNSW and IVF get a mask of the rows that are gone, other kinds search for more. Where that
    leaves a query with fewer documents than wanted, it is searched once more and to the end: all
    lists of IVF, all vectors of HNSW. So far as the kind can reach all rows, ``k`` come back.
    """

    def __init__(self, index: Any, rows: ShardRows, options: SearchOptions) -> None:
        self._index = index
        self._rows = rows
        self._options = options
        self._selector = rows.selector()

    def search(self, vectors: Vectors, k: int) -> Hits:
        """See `Shard.search`."""
        k = min(k, self._rows.live)
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, documents = self._look(queries, k)
        if k and self._rows.is_masked:
            few = np.flatnonzero(documents[:, -1] == ranking.PAD)
            if len(few):
                scores[few], documents[few] = self._look(queries[few], k, thoroughly=True)
        return Hits(scores, documents)

    def _look(
        self, queries: Vectors, k: int, thoroughly: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        index, width = self._index, k
        if isinstance(index, faiss.IndexIVF):
            lists = index.nlist
            probed = lists if thoroughly else self._options.nprobe or max(1, lists // 8)
            if self._goes_by_lists(len(queries), min(probed, lists)):
                scores, rows = ivf.search_by_lists(index, queries, k, min(probed, lists))
                return ranking.top_k(scores, self._rows.documents(rows), k)
            how = faiss.SearchParametersIVF(nprobe=probed, sel=self._selector)
        elif isinstance(index, faiss.IndexHNSWFlat) and thoroughly:
            index = faiss.downcast_index(index.storage)
            how = faiss.SearchParameters(sel=self._selector)
        elif isinstance(index, faiss.IndexHNSW):
            look = index.ntotal if thoroughly else self._options.ef_search or max(128, 2 * k)
            how = faiss.SearchParametersHNSW(efSearch=look, sel=self._selector)
        else:
            how = None
            if self._rows.is_masked:
                width = math.ceil(k / self._rows.share) + SHORTLIST_EXTRA
                width = index.ntotal if thoroughly else min(width, index.ntotal)
        scores, rows = index.search(queries, width, params=how)
        return ranking.top_k(scores, self._rows.documents(rows), k)

    def _goes_by_lists(self, queries: int, nprobe: int) -> bool:
        # It takes no mask of rows that are gone.
        can = self._options.by_lists and self._selector is None
        return can and ivf.pays(self._index, queries, nprobe)
