"""Many segments to one, in slices of query keys, so that memory does not grow with the files."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rerank_batch.score_cache.segment import ScoreSegment
from rerank_batch.score_cache.writer import LIMIT, Pairs, distinct, write_segment

_AT_ONCE = 64

_Key = tuple[int, int]


def merge(
    files: Sequence[Path], target: Path, oldest_day: int = 0, limit: int = LIMIT
) -> dict[int, int]:
    """Write the pairs of segments to one segment; what it holds, as pairs by day.

    A pair that several files hold keeps the score of the first of them. Scores from before
    ``oldest_day`` are left out, and hide nothing. Up to about twice ``limit`` pairs are in memory
    at once, or the pairs of a single query.

    Raises:
        StorageError: a file is damaged, or the target cannot be written.
    """
    if len(files) > _AT_ONCE:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            parts = []
            for start in range(0, len(files), _AT_ONCE):
                parts.append(Path(folder) / f"{start}.arrow")
                merge(files[start : start + _AT_ONCE], parts[-1], oldest_day, limit)
            return merge(parts, target, oldest_day, limit)
    cursors = [_Cursor(ScoreSegment(file)) for file in files]
    slices = (distinct(pairs[pairs["day"] >= oldest_day]) for pairs in _slices(cursors, limit))
    return write_segment(target, slices, limit)


def _slices(cursors: Sequence["_Cursor"], limit: int) -> Iterator[Pairs]:
    """What all files hold of the next queries, in the order of the files, and so on to the end.

    Each file is read as far as its share of the limit goes; of what was reached, those queries come
    that every file has been read up to.
    """
    while left := [cursor for cursor in cursors if cursor.left]:
        total = sum(cursor.left for cursor in left)
        for cursor in left:
            cursor.reach(limit * cursor.left // total)
        bound = min((cursor.last for cursor in left if cursor.last), default=None)
        yield np.concatenate([cursor.take(bound) for cursor in left])


class _Cursor:
    """A segment read from its first query to its last; ``left`` counts the pairs to come.

    ``last`` is the last query that was reached, None where that is the last of all.
    """

    def __init__(self, segment: ScoreSegment) -> None:
        self._segment = segment
        self._batch = self._row = self._stop = 0
        self.left = segment.pairs
        self.last: _Key | None = None

    def reach(self, pairs: int) -> None:
        """Look ahead so many pairs, but at least a query, and not beyond the batch."""
        offsets = self._segment.offsets(self._batch)
        fits = int(np.searchsorted(offsets, offsets[self._row] + pairs, side="right")) - 1
        self._stop = max(self._row + 1, fits)
        self.last = None
        if offsets[self._stop] - offsets[self._row] < self.left:
            hi, lo = self._segment.queries(self._batch, self._stop - 1, self._stop)
            self.last = int(hi[0]), int(lo[0])

    def take(self, bound: _Key | None) -> Pairs:
        """The pairs of the queries that were reached and are not beyond the bound."""
        stop = self._stop
        if bound:
            hi, lo = self._segment.queries(self._batch, self._row, self._stop)
            within = (hi < bound[0]) | ((hi == bound[0]) & (lo <= bound[1]))
            stop = self._row + int(np.count_nonzero(within))
        pairs = self._segment.read(self._batch, self._row, stop)
        self.left -= len(pairs)
        self._row = stop
        if stop == self._segment.rows(self._batch):
            self._batch, self._row = self._batch + 1, 0
        return pairs
