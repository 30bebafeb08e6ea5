"""The one total order: score descending, then document id ascending.

Documents are numbered in the order of their ids when an index is built, so comparing the numbers
compares the ids: everything here works on int64 document numbers and never needs the strings.
Ties are therefore broken the same way on one shard, on many, and after a resume.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Documents = NDArray[np.int64]
Scores = NDArray[np.float32]

PAD = -1
NO_DOCUMENTS: Documents = np.empty(0, np.int64)


def order(scores: Scores, documents: Documents) -> NDArray[np.int64]:
    """Positions that sort one list by (-score, document); both inputs have shape [n]."""
    return np.lexsort((documents, -scores))


def cascade_order(scores: Scores, documents: Documents) -> NDArray[np.int64]:
    """Positions that sort one list by how far each document got, then by the total order.

    ``scores`` has shape [stages, n], retrieval first, NaN where a stage did not read the document:
    those that the last stage read come first, by its scores, then the rest by the stage before.
    """
    return np.lexsort((documents, -deepest(scores), -_level(scores)))


def deepest(scores: Scores) -> Scores:
    """Of each document the score of the last stage that read it; shapes as in `cascade_order`."""
    last: Scores = scores[_level(scores), np.arange(scores.shape[1])]
    return last


def _level(scores: Scores) -> NDArray[np.int64]:
    """Of each document the number of the last stage that read it."""
    level: NDArray[np.int64] = len(scores) - 1 - np.argmax(~np.isnan(scores)[::-1], axis=0)
    return level


def distinct(lists: Sequence[Documents]) -> tuple[Documents, list[NDArray[np.int64]]]:
    """The distinct documents of lists, ascending, and of each list the places of its documents
    among them."""
    documents, places = np.unique(np.concatenate([*lists, NO_DOCUMENTS]), return_inverse=True)
    ends = np.cumsum([len(listed) for listed in lists])
    return documents, np.split(places, ends[:-1]) if lists else []


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
