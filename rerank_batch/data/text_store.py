"""The memory-mapped text store: the documents of a corpus by number, one file per shard.

A file is uncompressed Arrow IPC, opened by memory map: any number of processes on a node share one
copy, and a lookup touches only the pages it needs.
"""

import itertools
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGEST_BYTES = 16
_DIGEST_ROWS = 10_000


def shard_bounds(documents: int, shards: int) -> list[tuple[int, int]]:
    """Half-open document number ranges of nearly equal size, one per shard; none is empty."""
    shards = min(shards, documents)
    edges = np.linspace(0, documents, shards + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def write_texts(documents: pa.Table, bounds: Sequence[tuple[int, int]], folder: Path) -> list[Path]:
    """Write the text store, one Arrow IPC file per shard, and return the files.

    What else is known of documents, such as their digests, is written the same way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (start, stop) in enumerate(bounds):
        file = folder / f"{number:05d}.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, documents.schema) as writer:
            writer.write_table(documents.slice(start, stop - start).combine_chunks())
        files.append(file)
    return files


DIGESTS = pa.schema([("doc_id", pa.large_string()), ("digest", pa.binary(_DIGEST_BYTES))])
"""What tells a document that changed from one that did not, row by row of a shard."""


def digests_of(documents: pa.Table) -> pa.Table:
    """`DIGESTS` of documents as a `Corpus` has them: of each what models read of it."""
    digests = bytearray()
    for batch in documents.select(["title", "text"]).to_batches(_DIGEST_ROWS):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for row in rows:
            digests += blake2b(content(*row).encode(), digest_size=_DIGEST_BYTES).digest()
    column = pa.FixedSizeBinaryArray.from_buffers(
        DIGESTS.field("digest").type, documents.num_rows, [None, pa.py_buffer(bytes(digests))]
    )
    return pa.table([documents.column("doc_id"), column], schema=DIGESTS)


class TextStore:
    """Documents by number, read through a memory map.

    ``files`` and ``bounds`` come from the index manifest, in shard order. ``rows`` int64
    [documents] is the row of every document over all files; without it document n is row n.
    """

    def __init__(
        self,
        files: Sequence[Path],
        bounds: Sequence[tuple[int, int]],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._tables = [pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files]
        self._starts = np.array([start for start, _ in bounds], dtype=np.int64)
        self._row_of = rows
        self._count = bounds[-1][1] if rows is None else len(rows)

    def __len__(self) -> int:
        return self._count

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Ids of documents, in the order given."""
        return [row[0] for row in self._rows(documents, ("doc_id",))]

    def contents(self, documents: NDArray[np.int64]) -> list[str]:
        """What models read: title, a blank, text; in the order given."""
        return [content(*row) for row in self._rows(documents, ("title", "text"))]

    def numbers(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of documents by their ids, in the order given; -1 for an id that is none.

        Documents are in the order of their ids, so each is found by bisection, all at a time:
        nothing is kept in memory, whatever the size of the corpus.
        """
        wanted = np.array(ids, dtype=object)
        low = np.zeros(len(ids), dtype=np.int64)
        high = np.full(len(ids), self._count, dtype=np.int64)
        while len(going := np.flatnonzero(low < high)):
            middle = (low[going] + high[going]) // 2
            is_before = self._ids(middle) < wanted[going]
            low[going] = np.where(is_before, middle + 1, low[going])
            high[going] = np.where(is_before, high[going], middle)
        inside = np.flatnonzero(low < self._count)
        found = np.full(len(ids), -1, dtype=np.int64)
        is_it = self._ids(low[inside]) == wanted[inside]
        found[inside] = np.where(is_it, low[inside], -1)
        return found

    def _ids(self, documents: NDArray[np.int64]) -> NDArray[np.object_]:
        return np.array(self.ids(documents), dtype=object)

    def _rows(
        self, documents: NDArray[np.int64], columns: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [()] * len(documents)
        if self._row_of is not None:
            documents = np.asarray(self._row_of[documents])
        shard_of = np.searchsorted(self._starts, documents, side="right") - 1
        for shard in np.unique(shard_of):
            positions = np.flatnonzero(shard_of == shard)
            local = pa.array(documents[positions] - self._starts[shard])
            taken = self._tables[shard].select(columns).take(local)
            rows = zip(*(column.to_pylist() for column in taken.columns), strict=True)
            for position, row in zip(positions, rows, strict=True):
                found[position] = row
        return found


def content(title: str, text: str) -> str:
    """Title and text as one passage."""
    return f"{title} {text}" if title.strip() else text
