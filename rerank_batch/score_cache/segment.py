"""A segment as readers see it: mapped into memory, looked up many pairs at a time.

All record batches are read through one view of the whole file, with the places of their buffers
noted when it is opened. So a window of queries is searched in one go, whatever batches they lie in;
only the pages that the search touches are read; and an offset that damage made up ends in an
error, not outside the map. Knows files, not where they come from.
"""

import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.errors import StorageError
from rerank_batch.score_cache.keys import Keys
from rerank_batch.score_cache.writer import DOCUMENT, PAIR, QUERY, SCHEMA, Pairs

_Places = NDArray[np.int64]


class KnownScores(NamedTuple):
    """What is known of pairs: ``found`` bool, ``score`` float32, ``truncated`` bool, all [n].

    Where a pair was not found its score is NaN.
    """

    found: NDArray[np.bool_]
    score: NDArray[np.float32]
    truncated: NDArray[np.bool_]

    @classmethod
    def nothing(cls, pairs: int) -> "KnownScores":
        """So many pairs, none of them found."""
        return cls(
            np.zeros(pairs, dtype=bool),
            np.full(pairs, np.nan, dtype=np.float32),
            np.zeros(pairs, dtype=bool),
        )


class ScoreSegment:
    """A file that `write_segment` wrote; ``pairs`` in ``batches`` record batches.

    Opening reads the file's footer, what describes the batches, and their first and last queries.
    ``size`` is what the file should have, in bytes.

    Raises:
        StorageError: the file is missing or damaged.
    """

    def __init__(self, file: Path, size: int | None = None) -> None:
        self._file = file
        try:
            with file.open("rb") as source:
                self._map = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            self._buffer = pa.py_buffer(self._map)
            reader = pa.ipc.open_file(pa.BufferReader(self._buffer))
            if reader.schema != SCHEMA:
                raise self._damaged("its columns are not those of scores")
            batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
            for batch in batches:
                batch.validate()
                if not batch.num_rows:
                    raise self._damaged("a batch is empty")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        if size not in (None, self._buffer.size):
            raise self._damaged(f"it has {self._buffer.size} bytes instead of {size}")
        kinds = {
            "offsets": np.dtype(np.int64),
            **{name: PAIR[name] for name in (*QUERY, *DOCUMENT)},
        }
        self._views: dict[str, NDArray[Any]] = {
            name: np.frombuffer(self._buffer, kind, self._buffer.size // kind.itemsize)
            for name, kind in kinds.items()
        }
        self._words = self._views["query_hi"]
        self.batches = len(batches)
        self._rows = np.array([batch.num_rows for batch in batches], dtype=np.int64)
        self._pairs = np.array(
            [len(batch.column("pairs").values) for batch in batches], dtype=np.int64
        )
        self.pairs = int(self._pairs.sum())
        self._at = self._places(batches)
        self._first = self._first_keys()

    def find(self, queries: Keys, query_of: NDArray[np.int64], documents: Keys) -> KnownScores:
        """Look up n pairs: ``queries`` [m, 2], ``query_of`` [n] rows of it, ``documents`` [n, 2].

        Raises:
            StorageError: the file turns out to be damaged.
        """
        answer = KnownScores.nothing(len(query_of))
        if not self.batches:
            return answer
        try:
            batch, row, known = self._find_queries(queries)
            candidates = np.flatnonzero(known[query_of])
            at = {name: places[batch] for name, places in self._at.items()}
            start, stop = (self._views["offsets"][at["offsets"] + row + n] for n in (0, 1))
            of = query_of[candidates]
            place, found = _search(
                self._words,
                (at["document_hi"] + start)[of],
                (at["document_lo"] + start)[of],
                (stop - start)[of],
                documents[candidates],
            )
            hits, of, place = candidates[found], of[found], place[found]
            for name, values in (("score", answer.score), ("truncated", answer.truncated)):
                values[hits] = self._views[name][(at[name] + start)[of] + place]
        except IndexError:
            raise self._damaged("an offset leads out of it") from None
        answer.found[hits] = True
        self._let_go()
        return answer

    def rows(self, batch: int) -> int:
        """Queries of a batch."""
        return int(self._rows[batch])

    def offsets(self, batch: int) -> NDArray[np.int64]:
        """Where the pairs of every query of a batch begin, and where the last ones end.

        Raises:
            StorageError: they are damaged.
        """
        rows = self._rows[batch]
        offsets = self._column("offsets", batch, 0, rows + 1)
        if offsets[0] or offsets[-1] != self._pairs[batch] or np.any(np.diff(offsets) < 1):
            raise self._damaged(f"the offsets of batch {batch} are not in order")
        return offsets

    def queries(self, batch: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Both halves of the keys of the queries ``start`` up to ``stop`` of a batch."""
        hi, lo = (self._column(name, batch, start, stop) for name in QUERY)
        return hi, lo

    def read(self, batch: int, start: int, stop: int) -> Pairs:
        """The pairs of the queries ``start`` up to ``stop`` of a batch: dtype `PAIR`."""
        offsets = self.offsets(batch)[start : stop + 1]
        pairs = np.empty(offsets[-1] - offsets[0], PAIR)
        for name in QUERY:
            values = self._column(name, batch, start, stop)
            pairs[name] = np.repeat(values, np.diff(offsets))
        for name in DOCUMENT:
            pairs[name] = self._column(name, batch, offsets[0], offsets[-1])
        self._let_go()
        return pairs

    def _column(self, name: str, batch: int, start: int, stop: int) -> NDArray[Any]:
        place = self._at[name][batch]
        return self._views[name][place + start : place + stop]

    def _places(self, batches: list[pa.RecordBatch]) -> dict[str, _Places]:
        """Where each column of each batch begins in its view of the file, in elements."""
        listed = [{name: _buffer_of(batch, name) for name in self._views} for batch in batches]
        places: dict[str, _Places] = {}
        for name, view in self._views.items():
            addresses = [each[name].address - self._buffer.address for each in listed]
            if any(at % view.itemsize or not 0 <= at < self._buffer.size for at in addresses):
                raise self._damaged(f"{name} cannot be read in place")
            places[name] = np.array(addresses, dtype=np.int64) // view.itemsize
        return places

    def _first_keys(self) -> NDArray[np.uint64]:
        """The first query of every batch as `_search` wants them: first halves, second halves."""
        first: list[tuple[int, int]] = []
        last = (-1, -1)
        for batch in range(self.batches):
            hi, lo = self.queries(batch, 0, self.rows(batch))
            first.append((int(hi[0]), int(lo[0])))
            if not last < first[-1] <= (last := (int(hi[-1]), int(lo[-1]))):
                raise self._damaged("its queries are not in order")
        halves = np.array(first, dtype=np.uint64).reshape(-1, 2).T
        return np.append(halves.ravel(), np.uint64(0))

    def _find_queries(self, queries: Keys) -> tuple[_Places, _Places, NDArray[np.bool_]]:
        """Batch and row of every query, and whether it is there."""
        none = np.zeros(len(queries), dtype=np.int64)
        batch, found = _search(self._first, none, none + self.batches, none + self.batches, queries)
        # Between two first queries a query lies in the earlier batch, if anywhere.
        batch = np.maximum(batch - ~found, 0)
        row, known = _search(
            self._words,
            self._at["query_hi"][batch],
            self._at["query_lo"][batch],
            self._rows[batch],
            queries,
        )
        return batch, np.where(known, row, 0), known

    def _let_go(self) -> None:
        """Unmap the pages that were touched, which stay in the system's cache.

        Every page brings its neighbours with it, so that a process would soon seem to hold all of
        the file.
        """
        self._map.madvise(mmap.MADV_DONTNEED)

    def _damaged(self, why: object) -> StorageError:
        return StorageError(f"{self._file} is no whole file of scores: {why}")


def _search(
    words: NDArray[np.uint64], hi: _Places, lo: _Places, length: _Places, keys: Keys
) -> tuple[_Places, NDArray[np.bool_]]:
    """Binary search for keys [n, 2], all at once: the first place not below each, and if it is it.

    Key i is looked for among ``length[i]`` sorted ones, whose halves begin at ``words[hi[i]]`` and
    ``words[lo[i]]``. A search that has ended early may look one key past its end.
    """
    key_hi, key_lo = keys[:, 0], keys[:, 1]
    low, high = np.zeros_like(length), length

    def compare(place: _Places) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        first = words[hi + place]
        below, equal = first < key_hi, first == key_hi
        # Second halves matter, and their pages are read, only where the first are equal.
        tie = np.flatnonzero(equal)
        second = words[lo[tie] + place[tie]]
        below[tie], equal[tie] = second < key_lo[tie], second == key_lo[tie]
        return below, equal

    for _ in range(int(length.max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        below = compare(middle)[0] & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return low, compare(low)[1] & (low < length)


def _buffer_of(batch: pa.RecordBatch, name: str) -> pa.Buffer:
    if name == "offsets":
        return batch.column("pairs").buffers()[1]
    column = batch.column(name) if name in QUERY else batch.column("pairs").values.field(name)
    return column.buffers()[1]
