"""The stage that writes the shards of an update: vectors of old shards and new ones put together.
Like those of `rerank_batch.pipeline.index_stages`."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.errors import IndexMismatch
from rerank_batch.index.open import Index
from rerank_batch.pipeline.index_stages import read_vectors

_LARGEST_FLAT = 50_000


class AssembleShards:
    """Builds shards of an update from ``sources``, see `index.changes.vector_sources`.

    A shard that is small, for this index (``usual`` documents a shard) or at all, is a Flat one
    whatever the kind: that is as fast, exact, and can be trained on any number of vectors.
    """

    def __init__(
        self,
        index: Index,
        build: str,
        kind: str,
        usual: int,
        sources: NDArray[np.int64],
        threads: int = 1,
    ) -> None:
        from rerank_batch.retrieval.shards import set_threads

        set_threads(threads)
        self._index, self._build, self._kind = index, build, kind
        self._smallest = min(_LARGEST_FLAT, usual // 2)
        self._sources = sources

    def __call__(self, table: pa.Table) -> pa.Table:
        """``shard``, ``start``, ``stop`` in; ``key``, ``bytes``, ``sha256`` of its file added."""
        from rerank_batch.retrieval.shards import build_shard

        root, stored = self._index.root, []
        for row in table.to_pylist():
            key = f"{self._build}/shards/{row['shard']:05d}.faiss"
            vectors = self._vectors(self._sources[row["start"] : row["stop"]])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "shard.faiss"
                build_shard(vectors, "Flat" if len(vectors) < self._smallest else self._kind, file)
                stored.append((key, root.publish(key, file)))
        return (
            table.append_column("key", pa.array([key for key, _ in stored], pa.string()))
            .append_column("bytes", pa.array([each.bytes for _, each in stored], pa.int64()))
            .append_column("sha256", pa.array([each.sha256 for _, each in stored], pa.string()))
        )

    def _vectors(self, sources: NDArray[np.int64]) -> NDArray[np.float32]:
        from rerank_batch.retrieval.shards import stored_vectors

        manifest = self._index.manifest
        vectors = np.empty((len(sources), manifest.dimension), np.float32)
        encoded = -1 - sources[sources < 0]
        if len(encoded):
            first, last = int(encoded.min()), int(encoded.max())
            part = read_vectors(self._index.root, self._build, first, last + 1)
            vectors[sources < 0] = part[encoded - first]
        starts = np.array([start for start, _ in manifest.bounds])
        shard_of = np.where(sources < 0, -1, np.searchsorted(starts, sources, side="right") - 1)
        shards = np.unique(shard_of[shard_of >= 0]).tolist()
        for shard, file in zip(shards, self._index.vector_files(shards), strict=True):
            of_shard = shard_of == shard
            stored = stored_vectors(file)
            if stored is None:
                raise IndexMismatch(f"{file} does not keep its vectors")
            vectors[of_shard] = stored[sources[of_shard] - starts[shard]]
        return vectors
