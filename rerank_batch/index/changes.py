"""What changed between an index and a corpus, and which shards that makes new.

An update writes what is new or changed to a shard of its own, and rows whose document is gone get
no number any more. So that shards do not become many, a new one takes in the small ones before it,
as in the logarithmic method (Bentley and Saxe, "Decomposable searching problems I", Journal of
Algorithms 1, 1980): over many updates a document is copied a number of times that is logarithmic in
their number. Knows documents by number and shards by their rows: no files, no vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Bounds = Sequence[tuple[int, int]]

GONE = -1
"""The number of a row whose document is gone, and the row of a document that has none yet."""


@dataclass(frozen=True)
class Changes:
    """The differences of a corpus from an index.

    ``rows`` int64 [documents of the corpus] is the row that holds the document as it is now, or
    `GONE`: it is new or changed.
    """

    rows: Numbers
    added: int
    updated: int
    deleted: int

    @property
    def unchanged(self) -> int:
        """Documents that need no encoding."""
        return len(self.rows) - self.added - self.updated

    @property
    def to_encode(self) -> Numbers:
        """The documents that do, by number."""
        return np.flatnonzero(self.rows == GONE)

    @property
    def is_none(self) -> bool:
        """Whether the same documents are there."""
        return not (self.added or self.updated or self.deleted)


@dataclass(frozen=True)
class Layout:
    """Shards after an update: old ones that are ``kept`` by their numbers, then the ``written``,
    each the documents that it holds, in order."""

    kept: tuple[int, ...]
    written: tuple[Numbers, ...]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Rows of the written shards among all that are written."""
        edges = np.cumsum([0, *map(len, self.written)]).tolist()
        return list(pairwise(edges))


def compare(corpus: pa.Table, index: pa.Table, numbers: Numbers | None) -> Changes:
    """The changes from an index to a corpus, both `corpus.DIGESTS`, row by row.

    ``numbers`` are those of the index's rows, `GONE` for those that do not count; None: all do.
    """
    live = np.arange(index.num_rows) if numbers is None else np.flatnonzero(numbers != GONE)
    known = index.column("doc_id").combine_chunks().take(pa.array(live))
    places = pc.fill_null(pc.index_in(corpus.column("doc_id"), value_set=known), GONE)
    places = places.to_numpy().astype(np.int64)
    rows = np.full(corpus.num_rows, GONE, np.int64)
    common = np.flatnonzero(places != GONE)
    common_rows = live[places[common]]
    same = (_words(corpus)[common] == _words(index)[common_rows]).all(axis=1)
    rows[common[same]] = common_rows[same]
    updated = int(np.count_nonzero(~same))
    return Changes(
        rows=rows,
        added=len(rows) - len(common),
        updated=updated,
        deleted=len(live) - len(common),
    )


def plan_layout(
    changes: Changes,
    bounds: Bounds,
    usual: int,
    compact_at: float,
    can_copy: Callable[[int], bool],
) -> Layout:
    """Which shards stay and which are written.

    ``bounds`` are the rows of the shards there are, ``usual`` the documents of a shard of a full
    build. A shard is written anew where more than ``compact_at`` of its rows are gone, or where it
    is small beside what is new; ``can_copy`` is whether the vectors of a shard can be read.
    """
    starts = np.array([start for start, _ in bounds])
    unchanged = np.flatnonzero(changes.rows != GONE)
    shard_of = np.searchsorted(starts, changes.rows[unchanged], side="right") - 1
    live = np.bincount(shard_of, minlength=len(bounds)).tolist()
    gone = {n for n, (start, stop) in enumerate(bounds) if not live[n]}
    rewritten, taken_in = [], []
    size = len(changes.to_encode)
    for shard in sorted(set(range(len(bounds))) - gone, key=lambda shard: (live[shard], shard)):
        start, stop = bounds[shard]
        is_small = live[shard] <= size and size + live[shard] <= usual
        is_worn = 1 - live[shard] / (stop - start) > compact_at
        if not (is_small or is_worn) or not can_copy(shard):
            continue
        if is_small:
            taken_in.append(shard)
            size += live[shard]
        else:
            rewritten.append(shard)
    written = [unchanged[shard_of == shard] for shard in sorted(rewritten)]
    fresh = np.union1d(changes.to_encode, unchanged[np.isin(shard_of, taken_in)])
    if len(fresh):
        written += np.array_split(fresh, -(-len(fresh) // max(usual, 1)))
    left = set(range(len(bounds))) - gone - set(rewritten) - set(taken_in)
    return Layout(tuple(sorted(left)), tuple(part.astype(np.int64) for part in written))


def number_rows(changes: Changes, layout: Layout, bounds: Bounds) -> tuple[Numbers, Numbers]:
    """The number of every row after an update, `GONE` where it has none, and the row of every
    document. Within a shard numbers rise."""
    number_of = np.full(bounds[-1][1], GONE, np.int64)
    unchanged = np.flatnonzero(changes.rows != GONE)
    number_of[changes.rows[unchanged]] = unchanged
    kept = [number_of[slice(*bounds[shard])] for shard in layout.kept]
    numbers = np.concatenate([*kept, *layout.written])
    live = np.flatnonzero(numbers != GONE)
    rows = np.empty(len(changes.rows), np.int64)
    rows[numbers[live]] = live
    return numbers, rows


def vector_sources(changes: Changes, layout: Layout) -> Numbers:
    """Where the vectors of the written rows come from: the row of an old shard, or of those that
    are encoded, in order, number n as -1 - n."""
    documents = np.concatenate([*layout.written, np.empty(0, np.int64)])
    encoded = np.searchsorted(changes.to_encode, documents)
    return np.where(changes.rows[documents] == GONE, -1 - encoded, changes.rows[documents])


def _words(digests: pa.Table) -> NDArray[np.uint64]:
    """The digests as numbers, [n, 2]."""
    column = digests.column("digest").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    raw = np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, 2)
    return raw[column.offset : column.offset + len(column)]
