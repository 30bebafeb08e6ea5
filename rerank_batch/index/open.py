"""An index in storage: access to its files, and the check that all of them are there.

Knows files, not FAISS and not models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.data.text_store import TextStore
from rerank_batch.errors import IndexMismatch
from rerank_batch.index.manifest import IndexFile, Manifest
from rerank_batch.storage import NodeCache, Root, sha256_file


@dataclass(frozen=True)
class Index:
    """A finished index and how a process gets at its files; small and picklable."""

    root: Root
    manifest: Manifest
    cache: NodeCache

    def generations(self) -> dict[str, str]:
        """The name of the generation by where the index lies, as runs keep it; of an index of a
        version that named none, nothing."""
        named = self.manifest.generation
        return {self.root.uri: named} if named else {}

    def part(self, start: int, stop: int) -> "Index":
        """Some of the shards alone, to be searched: see `Manifest.part`. Texts are those of the
        whole index, so they are not to be read from a part."""
        return replace(self, manifest=self.manifest.part(start, stop))

    def vector_files(self, shards: Iterable[int] | None = None) -> list[Path]:
        """Local files of the shards, or of some, in order; downloaded where they must be."""
        every = self.manifest.shards
        chosen = every if shards is None else [every[shard] for shard in shards]
        return self._local(shard.vectors for shard in chosen)

    def posting_files(self) -> list[Path]:
        """Local files of the BM25 shards, in order; a part may be without any.

        Raises:
            IndexMismatch: the index has none.
        """
        words = self.manifest.word_shards()
        if self.manifest.bm25 is None or (self.manifest.words is None and not words):
            raise IndexMismatch(
                f"the index at {self.root.uri} has no BM25 shards; "
                "build them with: rerank-batch build-index CONFIG"
            )
        return self._local(each.postings for each in words)

    def texts(self) -> TextStore:
        """The text store."""
        numbering = self.manifest.numbering
        return TextStore(
            self._local(shard.texts for shard in self.manifest.shards),
            self.manifest.bounds,
            None if numbering is None else self._array(numbering.rows),
        )

    def numbers(self, excluded: Sequence[int] = ()) -> NDArray[np.int64] | None:
        """The number of every row's document, -1 where it is gone or ``excluded`` by its number.

        Of a part these are its own rows. None where row n holds document n and nothing is excluded.
        """
        numbering = self.manifest.numbering
        if numbering is None and not excluded:
            return None
        bounds = self.manifest.bounds
        first, end = bounds[0][0], bounds[-1][1]
        rows = np.array(excluded, np.int64)
        if numbering is None:
            numbers = np.arange(first, end, dtype=np.int64)
        else:
            numbers = self._array(numbering.numbers)[first:end]
            rows = self._array(numbering.rows)[rows] if excluded else rows
        if excluded:
            numbers = np.array(numbers)
            numbers[rows[(first <= rows) & (rows < end)] - first] = -1
        return numbers

    def digests(self) -> pa.Table | None:
        """`corpus.DIGESTS` of every row; None in an index of a version that knew no updates."""
        files = [shard.digests for shard in self.manifest.shards if shard.digests is not None]
        if len(files) < len(self.manifest.shards):
            return None
        local = self._local(files)
        return pa.concat_tables(
            pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in local
        )

    def _array(self, file: IndexFile) -> NDArray[np.int64]:
        array: NDArray[np.int64] = np.load(self._local([file])[0], mmap_mode="r")
        return array

    def _local(self, files: Iterable[IndexFile]) -> list[Path]:
        return self.cache.fetch(self.root, [file.wanted for file in files])


def verify_files(index: Index) -> None:
    """Check every file before anything is loaded: on this machine by its sha256.

    In a bucket by size alone: there the node cache compares the sha256 with every download.

    Raises:
        IndexMismatch: a file is missing or changed.
        ConfigError: the texts, which every node that reads documents has, and the numbering do
            not fit the node cache. Whether the shards do depends on how many nodes share them.
    """
    root = index.root
    files = list(index.manifest.files())
    index.cache.check_room(root, [file.wanted for file in index.manifest.files_of_all_parts()])
    for build in {file.key.split("/")[0] for file in files}:
        sizes = root.sizes(f"{build}/")
        for file in (file for file in files if file.key.startswith(f"{build}/")):
            if file.key not in sizes:
                raise IndexMismatch(f"{root.path(file.key)} is missing; build the index again")
            local = root.local(file.key)
            changed = sizes[file.key] != file.bytes or (
                local is not None and sha256_file(local) != file.sha256
            )
            if changed:
                raise IndexMismatch(
                    f"{root.path(file.key)} is not what was built (sha256 differs); build it again"
                )
