"""FAISS shards: built, written, mapped into memory and searched. With `ivf` all that knows FAISS.

Flat shards are exact: what comes back does not depend on how many shards there are, how many
queries a call holds, or which ones. FAISS computes inner products in float32 blocks whose rounding
depends on all of these, so its hits are a shortlist here: the shortlist is scored again in float64
pair by pair, and widened until rounding cannot have kept out a document that belongs in it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.errors import ConfigError, IndexMismatch
from rerank_batch.retrieval import ivf
from rerank_batch.retrieval.hits import Hits

faiss: Any = _typed_faiss  # its stubs lag behind its library

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]
"""Of every row of a shard the number of its document, -1 where that is gone."""

_SHORTLIST_EXTRA = 16
_RESCORE_BYTES = 64 << 20


@dataclass(frozen=True)
class SearchOptions:
    """How hard the approximate kinds look: IVF lists probed, HNSW beam width.

    Without ``by_lists`` IVF is never searched list by list, to measure what that is worth.
    """

    nprobe: int | None = None
    ef_search: int | None = None
    by_lists: bool = True


class Shard(Protocol):
    """A part of the index that answers for its own documents."""

    def search(self, vectors: Vectors, k: int) -> Hits:
        """The shard's best ``k`` documents by inner product, numbered as in the whole corpus."""


def factory_string(kind: str, documents: int) -> str:
    """The FAISS factory string of a kind; HNSW and IVF get sizes that fit the shard.

    IVF takes 4·sqrt(n) lists, the middle of what the FAISS wiki advises ("Guidelines to choose an
    index"), and at least 39 training vectors a list, below which FAISS warns.
    """
    if kind == "HNSW":
        return "HNSW32"
    if kind == "IVF":
        return f"IVF{max(1, min(int(4 * math.sqrt(documents)), documents // 39))},Flat"
    return kind


def build_shard(vectors: Vectors, kind: str, file: Path) -> None:
    """Build and write one shard; ``vectors`` are unit length, float32 [n, dimension].

    Raises:
        ConfigError: FAISS does not know the kind.
    """
    try:
        index = faiss.index_factory(
            vectors.shape[1], factory_string(kind, len(vectors)), faiss.METRIC_INNER_PRODUCT
        )
    except RuntimeError as error:
        raise ConfigError(
            f"index.kind: FAISS does not know {kind!r} ({_first_line(error)}); "
            "use Flat, HNSW, IVF or a FAISS factory string"
        ) from None
    try:
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise ConfigError(
            f"index.kind: {kind!r} cannot be built from {len(vectors)} vectors "
            f"({_first_line(error)}); use fewer shards, fewer lists, or Flat"
        ) from None
    faiss.write_index(index, str(file))


def open_shard(
    file: Path,
    first: int,
    options: SearchOptions | None = None,
    numbers: Numbers | None = None,
) -> Shard:
    """Map a shard into memory; ``first`` is the number of its first document.

    With ``numbers``, which rise but for those that are gone, rows hold other documents than these.

    Raises:
        IndexMismatch: FAISS cannot read the file.
    """
    index = _read(file)
    rows = _Rows(index.ntotal, first, numbers)
    if isinstance(index, faiss.IndexFlat):
        return FlatShard(index, rows)
    return ApproximateShard(index, rows, options or SearchOptions())


def stored_vectors(file: Path) -> Vectors | None:
    """The vectors a shard was built from, float32 [n, d]; None where its kind does not keep them.

    Raises:
        IndexMismatch: FAISS cannot read the file.
    """
    index = _read(file)  # held to the end: what is inside of it does not hold it
    holder = index
    if isinstance(index, faiss.IndexHNSWFlat):
        holder = faiss.downcast_index(index.storage)
    elif isinstance(index, faiss.IndexIVFFlat):
        index.make_direct_map()
    elif not isinstance(index, faiss.IndexFlat):
        return None
    vectors: Vectors = holder.reconstruct_n(0, index.ntotal)
    return vectors


def keeps_vectors(file: Path) -> bool:
    """Whether `stored_vectors` has an answer."""
    return isinstance(_read(file), faiss.IndexFlat | faiss.IndexHNSWFlat | faiss.IndexIVFFlat)


def _read(file: Path) -> Any:
    try:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        try:
            return faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise IndexMismatch(
                f"{file} is no readable FAISS index: {_first_line(error)}"
            ) from None


def set_threads(threads: int) -> None:
    """How many threads one search may use in this process."""
    faiss.omp_set_num_threads(threads)


class _Rows:
    """Which documents the rows of a shard hold."""

    def __init__(self, rows: int, first: int, numbers: Numbers | None) -> None:
        self._first, self._numbers = first, numbers
        self.live = rows if numbers is None else int(np.count_nonzero(numbers != ranking.PAD))
        self.is_masked = self.live < rows
        self.share = self.live / max(rows, 1)

    def documents(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """The documents in rows, -1 for one that is gone and for the row -1."""
        if self._numbers is None:
            return np.where(found == ranking.PAD, ranking.PAD, found + self._first)
        return np.where(found == ranking.PAD, ranking.PAD, self._numbers[found])

    def selector(self) -> Any:
        """The rows that are not gone, for FAISS; None where none is."""
        if not self.is_masked:
            return None
        bits = np.packbits(np.asarray(self._numbers) != ranking.PAD, bitorder="little")
        return faiss.IDSelectorBitmap(bits)


class FlatShard:
    """Exact search over a mapped Flat index.

    Rows that are gone are taken out of the shortlist, which is widened until it is full: with a
    selector FAISS would search row by row and not by matrix products.
    """

    def __init__(self, index: Any, rows: _Rows) -> None:
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
        width = math.ceil(k / self._rows.share) + _SHORTLIST_EXTRA if k else 0
        while len(todo):
            width = min(width, self._index.ntotal)
            asked = np.ascontiguousarray(vectors[todo], dtype=np.float32)
            rough, found = self._index.search(asked, width)
            there = self._rows.documents(found)
            exact = np.where(there == ranking.PAD, -np.inf, self._rescore(asked, found))
            scores[todo], documents[todo] = ranking.top_k(
                exact.astype(np.float32, copy=False), there, k
            )
            if width == self._index.ntotal:
                break
            # A document outside the shortlist scored at most the shortlist's worst by FAISS.
            missed_at_most = rough[:, -1] + 2 * self._rounding * np.linalg.norm(asked, axis=1)
            todo = todo[scores[todo, -1] <= missed_at_most]
            width *= 4
        return Hits(scores, documents)

    def _rescore(self, vectors: Vectors, found: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products of queries [n, d] and their hits [n, w] in float64, one pair at a time."""
        exact = np.empty(found.shape, dtype=np.float32)
        step = max(1, _RESCORE_BYTES // (8 * found.shape[1] * vectors.shape[1]))
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            stored = self._stored[found[part]].astype(np.float64)
            exact[part] = (stored * vectors[part, None, :].astype(np.float64)).sum(axis=-1)
        return exact


class ApproximateShard:
    """HNSW, IVF and other kinds: FAISS's own hits and scores, in the total order.

    HNSW and IVF are told which rows are gone, other kinds are asked for more. Where that leaves a
    query with fewer than it asks for, it is searched once more and through to the end: all lists
    of IVF, all vectors of HNSW. So far as the kind lets rows be found at all, ``k`` come back.
    """

    def __init__(self, index: Any, rows: _Rows, options: SearchOptions) -> None:
        self._index = index
        self._rows = rows
        self._options = options
        self._selector = rows.selector()

    def search(self, vectors: Vectors, k: int) -> Hits:
        """See `Shard.search`."""
        k = min(k, self._rows.live)
        asked = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, documents = self._look(asked, k)
        if k and self._rows.is_masked:
            few = np.flatnonzero(documents[:, -1] == ranking.PAD)
            if len(few):
                scores[few], documents[few] = self._look(asked[few], k, thoroughly=True)
        return Hits(scores, documents)

    def _look(
        self, asked: Vectors, k: int, thoroughly: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k == 0:
            return np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
        index, width = self._index, k
        if isinstance(index, faiss.IndexIVF):
            lists = index.nlist
            probed = lists if thoroughly else self._options.nprobe or max(1, lists // 8)
            if self._goes_by_lists(len(asked), min(probed, lists)):
                scores, found = ivf.search_by_lists(index, asked, k, min(probed, lists))
                return ranking.top_k(scores, self._rows.documents(found), k)
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
                width = math.ceil(k / self._rows.share) + _SHORTLIST_EXTRA
                width = index.ntotal if thoroughly else min(width, index.ntotal)
        scores, found = index.search(asked, width, params=how)
        return ranking.top_k(scores, self._rows.documents(found), k)

    def _goes_by_lists(self, queries: int, nprobe: int) -> bool:
        # It can be told of no rows that are gone.
        can = self._options.by_lists and self._selector is None
        return can and ivf.pays(self._index, queries, nprobe)


def search_all(shards: list[Shard], vectors: Vectors, k: int) -> Hits:
    """The best ``k`` over all shards under the total order."""
    hits = [shard.search(vectors, k) for shard in shards]
    return Hits(*ranking.merge([(hit.scores, hit.documents) for hit in hits], k))


def measure_recall(shards: list[Shard], vectors: Vectors, asked: Vectors, k: int) -> float:
    """Share of the exact top ``k`` over ``vectors`` [n, d] that the shards find for ``asked``."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    k = min(k, len(vectors))
    _, truth = exact.search(asked, k)
    found = search_all(shards, asked, k).documents
    hits = [len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True)]
    return float(np.sum(hits) / truth.size)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.rsplit("Error: ", 1)[-1].splitlines()[0] if text else type(error).__name__
