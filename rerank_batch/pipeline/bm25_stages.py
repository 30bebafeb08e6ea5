"""The stages that build BM25 shards: words are counted shard by shard, then scored with the
statistics of all. Like those of `rerank_batch.pipeline.index_stages`."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from rerank_batch.config import Bm25Config
from rerank_batch.errors import StorageError
from rerank_batch.pipeline.index_stages import BuildTexts
from rerank_batch.retrieval.bm25 import (
    Statistics,
    add_frequencies,
    build_postings,
    count_words,
    frequencies,
    write_table,
)
from rerank_batch.storage import Root

_DOCUMENTS_AT_ONCE = 4096


class CountWords:
    """Counts the words of shards and keeps the counts with the build; a row is a shard."""

    def __init__(
        self, root: Root, folder: str, texts: BuildTexts, settings: Bm25Config, threads: int = 1
    ) -> None:
        self._root, self._folder, self._settings = root, folder, settings
        self._texts = texts.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        """``shard``, ``start``, ``stop`` in; ``length``, its words in all, added."""
        lengths = []
        for row in table.to_pylist():
            batches = (
                self._texts.contents(
                    np.arange(start, min(start + _DOCUMENTS_AT_ONCE, row["stop"]), dtype=np.int64)
                )
                for start in range(row["start"], row["stop"], _DOCUMENTS_AT_ONCE)
            )
            counts, length = count_words(batches, self._settings)
            _publish(self._root, f"{self._folder}/counts/{row['shard']:05d}.arrow", counts)
            words = f"{self._folder}/words/{row['shard']:05d}.arrow"
            _publish(self._root, words, frequencies(counts))
            lengths.append(length)
        return table.append_column("length", pa.array(lengths, pa.int64()))


class BuildPostings:
    """Turns the counts of a shard into its BM25 file, and publishes it; a row is a shard."""

    def __init__(
        self,
        root: Root,
        folder: str,
        documents: int,
        length: int,
        settings: Bm25Config,
        threads: int = 1,
    ) -> None:
        self._root, self._folder, self._settings = root, folder, settings
        words = _read(root, f"{folder}/words.arrow")
        self._statistics = Statistics(documents, length, words)

    def __call__(self, table: pa.Table) -> pa.Table:
        """``shard``, ``start``, ``stop`` in; ``key``, ``bytes``, ``sha256`` of its file added."""
        stored = []
        for row in table.to_pylist():
            counts = _read(self._root, f"{self._folder}/counts/{row['shard']:05d}.arrow")
            postings = build_postings(counts, self._statistics, self._settings)
            key = f"{self._folder}/{row['shard']:05d}.arrow"
            stored.append((key, *_publish(self._root, key, postings)))
        for name, column in zip(("key", "bytes", "sha256"), zip(*stored, strict=True), strict=True):
            table = table.append_column(name, pa.array(column))
        return table


def sum_words(root: Root, folder: str, shards: int) -> None:
    """Keep with the build in how many documents of all shards each word stands."""
    parts = [_read(root, f"{folder}/words/{shard:05d}.arrow") for shard in range(shards)]
    _publish(root, f"{folder}/words.arrow", add_frequencies(parts))


def forget_counts(root: Root, folder: str) -> None:
    """Remove what only the build needed."""
    root.delete(
        [
            f"{folder}/words.arrow",
            *root.sizes(f"{folder}/words/"),
            *root.sizes(f"{folder}/counts/"),
        ]
    )


def _publish(root: Root, key: str, table: pa.Table) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.arrow"
        write_table(table, file)
        stored = root.publish(key, file)
        return stored.bytes, stored.sha256


def _read(root: Root, key: str) -> pa.Table:
    raw = root.read(key)
    if raw is None:
        raise StorageError(f"{key} is gone from {root.uri}")
    return pa.ipc.open_file(io.BytesIO(raw)).read_all()
