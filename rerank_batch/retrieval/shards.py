"""FAISS shards: built, written, mapped into memory and searched. The only module with FAISS.

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
from rerank_batch.retrieval.hits import Hits

faiss: Any = _typed_faiss  # its stubs lag behind its library

Vectors = NDArray[np.float32]

_SHORTLIST_EXTRA = 16
_RESCORE_BYTES = 64 << 20


@dataclass(frozen=True)
class SearchOptions:
    """How hard the approximate kinds look: IVF lists probed, HNSW beam width."""

    nprobe: int | None = None
    ef_search: int | None = None


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


def open_shard(file: Path, first: int, options: SearchOptions | None = None) -> Shard:
    """Map a shard into memory; ``first`` is the number of its first document.

    Raises:
        IndexMismatch: FAISS cannot read the file.
    """
    try:
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise IndexMismatch(
                f"{file} is no readable FAISS index: {_first_line(error)}"
            ) from None
    if isinstance(index, faiss.IndexFlat):
        return FlatShard(index, first)
    return ApproximateShard(index, first, options or SearchOptions())


def set_threads(threads: int) -> None:
    """How many threads one search may use in this process."""
    faiss.omp_set_num_threads(threads)


class FlatShard:
    """Exact search over a mapped Flat index."""

    def __init__(self, index: Any, first: int) -> None:
        self._index = index
        self._first = first
        floats = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._stored: Vectors = floats.reshape(index.ntotal, index.d)
        # |float32 sum - exact sum| <= n·u·|x||y| (Higham, Accuracy and Stability, 2nd ed., eq. 3.5)
        self._rounding = index.d * 2.0**-23

    def search(self, vectors: Vectors, k: int) -> Hits:
        """See `Shard.search`."""
        k = min(k, self._index.ntotal)
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        documents = np.full((len(vectors), k), ranking.PAD, dtype=np.int64)
        todo = np.arange(len(vectors))
        width = k + _SHORTLIST_EXTRA
        while len(todo):
            width = min(width, self._index.ntotal)
            asked = np.ascontiguousarray(vectors[todo], dtype=np.float32)
            rough, found = self._index.search(asked, width)
            exact = self._rescore(asked, found)
            scores[todo], documents[todo] = ranking.top_k(exact, found, k)
            if width == self._index.ntotal:
                break
            # A document outside the shortlist scored at most the shortlist's worst by FAISS.
            missed_at_most = rough[:, -1] + 2 * self._rounding * np.linalg.norm(asked, axis=1)
            todo = todo[scores[todo, -1] <= missed_at_most]
            width *= 4
        return Hits(
            scores, np.where(documents == ranking.PAD, ranking.PAD, documents + self._first)
        )

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
    """HNSW, IVF and other kinds: FAISS's own hits and scores, in the total order."""

    def __init__(self, index: Any, first: int, options: SearchOptions) -> None:
        self._index = index
        self._first = first
        self._options = options

    def search(self, vectors: Vectors, k: int) -> Hits:
        """See `Shard.search`."""
        k = min(k, self._index.ntotal)
        asked = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, found = self._index.search(asked, k, params=self._parameters(k))
        documents = np.where(found == ranking.PAD, ranking.PAD, found + self._first)
        return Hits(*ranking.top_k(scores, documents, k))

    def _parameters(self, k: int) -> Any:
        if isinstance(self._index, faiss.IndexIVF):
            lists = self._index.nlist
            return faiss.SearchParametersIVF(nprobe=self._options.nprobe or max(1, lists // 8))
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=self._options.ef_search or max(128, 2 * k))
        return None


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
