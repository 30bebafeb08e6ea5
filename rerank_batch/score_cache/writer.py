"""Segments: what is in them, and how they are written.

A segment is one Arrow IPC file, uncompressed so that it can be looked up where it is mapped:

    query_hi, query_lo   uint64, the key of a query; one row per query, sorted by it
    pairs                large_list of document_hi, document_lo uint64, score float32,
                         truncated uint8 (not bits: those could not be read in place),
                         day uint16; sorted by the document's key

Record batches hold consecutive ranges of keys, so that files of any size are written and merged a
slice at a time.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.score_cache.keys import Keys

QUERY = ("query_hi", "query_lo")
DOCUMENT = ("document_hi", "document_lo", "score", "truncated", "day")

PAIR = np.dtype(
    [
        *[(name, np.uint64) for name in (*QUERY, "document_hi", "document_lo")],
        ("score", np.float32),
        ("truncated", np.uint8),
        ("day", np.uint16),
    ]
)
"""A pair outside of files: keys, score, whether the model saw it cut short, the day of scoring."""

Pairs = NDArray[Any]

_STRUCT = pa.struct([(name, pa.from_numpy_dtype(PAIR[name])) for name in DOCUMENT])
SCHEMA = pa.schema([*[(name, pa.uint64()) for name in QUERY], ("pairs", pa.large_list(_STRUCT))])

LIMIT = 1 << 18
"""Pairs that are held in memory at once, and the most in a record batch."""


def today() -> int:
    """Days from 1970-01-01 to now, UTC: the ``day`` of a score."""
    return int(time.time() // 86400)


def write_segment(file: Path, slices: Iterable[Pairs], limit: int = LIMIT) -> dict[int, int]:
    """Write pairs that come in slices, each `distinct` and beyond the queries of the one before.

    Returns how many there were of each day.

    Raises:
        StorageError: the file cannot be written. Nothing is left of it then.
    """
    days: Counter[int] = Counter()
    try:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for pairs in _gather(slices, limit):
                writer.write_batch(_record_batch(pairs))
                counts = np.unique(pairs["day"], return_counts=True)
                days.update(dict(zip(*map(np.ndarray.tolist, counts), strict=True)))
    except BaseException as error:
        # Leaving the contexts has ended the file, so that it looks like a whole one.
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(f"cannot write scores to {file}: {error}") from None
        raise
    return dict(sorted(days.items()))


def _gather(slices: Iterable[Pairs], limit: int) -> Iterator[Pairs]:
    """The same in larger slices: a look-up pays for every batch there is."""
    held: list[Pairs] = []
    for pairs in slices:
        if held and sum(map(len, held)) + len(pairs) > limit:
            yield np.concatenate(held)
            held.clear()
        if len(pairs):
            held.append(pairs)
    if held:
        yield np.concatenate(held)


def write_block(
    file: Path,
    queries: Keys,
    query_of: NDArray[np.int64],
    documents: Keys,
    scores: NDArray[np.float32],
    truncated: NDArray[np.bool_],
    day: int,
) -> None:
    """Write the scores of one block as a segment.

    ``queries`` [m, 2] are keys, ``query_of`` [n] the row in it of every pair, ``documents`` [n, 2]
    keys, ``scores`` [n] and ``truncated`` [n] what the model said, ``day`` as `today` counts. A
    pair that comes twice is kept once, with its first score.

    Raises:
        RerankBatchError: a score is not finite. Nothing is written: such a score is a failure of
            the model, which a cache would make last.
        StorageError: the file cannot be written.
    """
    if not np.isfinite(scores).all():
        raise RerankBatchError("a score that is not finite was to be cached")
    pairs = np.empty(len(query_of), PAIR)
    pairs["query_hi"], pairs["query_lo"] = queries[query_of].T
    pairs["document_hi"], pairs["document_lo"] = documents.T
    pairs["score"], pairs["truncated"], pairs["day"] = scores, truncated, day
    write_segment(file, [distinct(pairs)])


def distinct(pairs: Pairs) -> Pairs:
    """Pairs sorted by their keys; of equal keys the first pair stays."""
    keys = (*QUERY, "document_hi", "document_lo")
    # lexsort is stable, so the first of equals stays the first.
    pairs = pairs[np.lexsort([pairs[name] for name in reversed(keys)])]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = np.any([pairs[name][1:] != pairs[name][:-1] for name in keys], axis=0)
    return pairs[new]


def _record_batch(pairs: Pairs) -> pa.RecordBatch:
    hi, lo = (pairs[name] for name in QUERY)
    changes = np.flatnonzero((hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])) + 1
    starts = np.concatenate([[0], changes])
    offsets = np.append(starts, len(pairs)).astype(np.int64)
    columns = [pa.array(np.ascontiguousarray(pairs[name])) for name in DOCUMENT]
    values = pa.StructArray.from_arrays(columns, fields=list(_STRUCT))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    return pa.record_batch([pa.array(hi[starts]), pa.array(lo[starts]), lists], schema=SCHEMA)
