"""FAISS shards: built, written, mapped into memory and searched.

With `flat`, `approximate`, `ivf` and `shard_rows` all that knows FAISS.
"""

import math
from pathlib import Path
from typing import Any, Protocol

import faiss as _typed_faiss
import numpy as np

from rerank_batch import ranking
from rerank_batch.errors import ConfigError, IndexMismatch
from rerank_batch.retrieval.approximate import ApproximateShard, SearchOptions
from rerank_batch.retrieval.flat import FlatShard
from rerank_batch.retrieval.hits import Hits
from rerank_batch.retrieval.shard_rows import Numbers, ShardRows, Vectors

faiss: Any = _typed_faiss  # its stubs lag behind its library


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
    rows = ShardRows(index.ntotal, first, numbers)
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


def search_all(shards: list[Shard], vectors: Vectors, k: int) -> Hits:
    """The best ``k`` over all shards under the total order."""
    hits = [shard.search(vectors, k) for shard in shards]
    return Hits(*ranking.merge([(hit.scores, hit.documents) for hit in hits], k))


def measure_recall(shards: list[Shard], vectors: Vectors, queries: Vectors, k: int) -> float:
    """Share of the exact top ``k`` over ``vectors`` [n, d] that the shards give for ``queries``."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    k = min(k, len(vectors))
    _, truth = exact.search(queries, k)
    hits = search_all(shards, queries, k).documents
    common = [len(np.intersect1d(a, b)) for a, b in zip(truth, hits, strict=True)]
    return float(np.sum(common) / truth.size)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.rsplit("Error: ", 1)[-1].splitlines()[0] if text else type(error).__name__
