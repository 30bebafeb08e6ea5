"""IVF list by list: each inverted list is read once for all queries that probe it.

FAISS's own search goes query by query and reads a list again for every query, from memory where the
lists are larger than the caches. `faiss.contrib.big_batch_search` sorts the work by lists instead.
Its results are those of that search: the same lists are probed, and every inner product is summed
by the same kernel, so that scores are equal to the last bit. Of documents that score the same at
the very end of a list it may keep another, as FAISS does whenever lists are filled in another
order.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import faiss as _typed_faiss
import numpy as np
from faiss.contrib.big_batch_search import big_batch_search
from numpy.typing import NDArray

faiss: Any = _typed_faiss  # its stubs lag behind its library

QUERIES_PER_LIST = 16
"""From how many queries a list on it pays: 8 are 1.3 times as fast as query by query, 16 are 1.6
times, 32 and more 2.5 times, 4 are slower (50,000 and 100,000 vectors of 384, one core; measure it
with `benchmark retrieval --kind IVF`)."""

_NO_BLAS = (1 << 31) - 1


def pays(index: Any, queries: int, nprobe: int) -> bool:
    """Whether an index is to be searched list by list for so many queries at once."""
    # Kinds that decode their vectors score otherwise there than they do in FAISS's own search.
    return type(index) is faiss.IndexIVFFlat and queries * nprobe >= QUERIES_PER_LIST * index.nlist


def search_by_lists(
    index: Any, vectors: NDArray[np.float32], k: int, nprobe: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and documents, [n, k] and padded with -1, as ``index.search`` gives them."""
    _, probed = index.quantizer.search(vectors, nprobe)
    # What it prints of its progress cannot be turned off.
    with _without_blas(), redirect_stdout(io.StringIO()):
        scores, documents = big_batch_search(
            index, vectors, k, verbose=1, q_assign=probed.astype(np.int32)
        )
    return scores, documents


@contextmanager
def _without_blas() -> Iterator[None]:
    """Inner products of many vectors at once are rounded otherwise than one by one."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = _NO_BLAS
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
