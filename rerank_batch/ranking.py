"""The one total order: score descending, then document id ascending.

Documents are numbered in the order of their ids when an index is built, so comparing the numbers
compares the ids: everything here works on int64 document numbers and never needs the strings.
Ties are therefore broken the same way on one shard, on many, and after a resume.
"""

import numpy as np
from numpy.typing import NDArray

Documents = NDArray[np.int64]
Scores = NDArray[np.float32]

PAD = -1


def order(scores: Scores, documents: Documents) -> NDArray[np.int64]:
    """Positions that sort one list by (-score, document); both inputs have shape [n]."""
    return np.lexsort((documents, -scores))


def top_k(scores: Scores, documents: Documents, k: int) -> tuple[Scores, Documents]:
    """The best ``k`` of every row under the total order.

    ``scores`` float32 and ``documents`` int64 have shape [n, m]; a document of -1 is padding and
    sorts last. Returns the same pair with shape [n, min(k, m)].
    """
    keys = np.where(documents == PAD, np.float32(-np.inf), scores)
    tie_break = np.where(documents == PAD, np.iinfo(np.int64).max, documents)
    best = np.lexsort((tie_break, -keys), axis=-1)[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(documents, best, axis=1)


def merge(parts: list[tuple[Scores, Documents]], k: int) -> tuple[Scores, Documents]:
    """Top ``k`` of the union of several shards' hits, each [n, k_i] and padded with -1."""
    scores = np.concatenate([part[0] for part in parts], axis=1)
    documents = np.concatenate([part[1] for part in parts], axis=1)
    return top_k(scores, documents, k)
