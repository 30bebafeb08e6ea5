"""The stages of an index build: document numbers in, vectors and files of shards out.

A row is a document or a shard here. Otherwise as in `rerank_batch.pipeline.stage`.
"""

import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import schema
from rerank_batch.data.text_store import TextStore
from rerank_batch.errors import StorageError
from rerank_batch.models.fingerprint import ModelPin, pinned_model
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.storage import NodeCache, Root, Wanted


@dataclass(frozen=True)
class BuildTexts:
    """The text store of an index that is being built: its files and which rows they hold; ``rows``
    is the file of the documents' rows, after an update."""

    root: Root
    cache: NodeCache
    files: tuple[Wanted, ...]
    bounds: tuple[tuple[int, int], ...]
    rows: Wanted | None = None

    def open(self) -> TextStore:
        """The store, from local files."""
        rows = None
        if self.rows is not None:
            rows = np.load(self.cache.fetch(self.root, [self.rows])[0], mmap_mode="r")
        return TextStore(self.cache.fetch(self.root, self.files), self.bounds, rows)


class EncodeDocuments:
    """The index job's heavy stage: document numbers in, their vectors beside them out."""

    def __init__(
        self,
        encoder: ModelPin,
        options: EncoderOptions,
        texts: BuildTexts,
        threads: int = 1,
    ) -> None:
        from rerank_batch.retrieval.encoder import Encoder

        with pinned_model(encoder) as folder:
            self._encoder = Encoder(folder, replace(options, threads=threads))
        self._texts = texts.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        """``document`` int64 in, ``vector`` added; a vector that is not finite is an error."""
        documents = table.column("document").to_numpy()
        vectors = self._encoder.encode_documents(self._texts.contents(documents))
        if not np.isfinite(vectors).all():
            from rerank_batch.errors import ModelError

            bad = documents[~np.isfinite(vectors).all(axis=1)][:5]
            raise ModelError(
                f"the encoder gave vectors that are not finite for {self._texts.ids(bad)}"
            )
        flat = pa.array(vectors.ravel(), pa.float32())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
        return table.append_column(schema.VECTOR, pa.ListArray.from_arrays(pa.array(offsets), flat))


class BuildShards:
    """The index job's last stage: one row per shard, its vectors read back, its file published."""

    def __init__(self, root: Root, build: str, kind: str, threads: int = 1) -> None:
        from rerank_batch.retrieval.shards import set_threads

        set_threads(threads)
        self._root, self._build, self._kind = root, build, kind

    def __call__(self, table: pa.Table) -> pa.Table:
        """``shard``, ``start``, ``stop`` in; ``key``, ``bytes``, ``sha256`` of its file added."""
        from rerank_batch.retrieval.shards import build_shard

        stored = []
        for row in table.to_pylist():
            key = f"{self._build}/shards/{row['shard']:05d}.faiss"
            vectors = read_vectors(self._root, self._build, row["start"], row["stop"])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "shard.faiss"
                build_shard(vectors, self._kind, file)
                stored.append((key, self._root.publish(key, file)))
        return (
            table.append_column("key", pa.array([key for key, _ in stored], pa.string()))
            .append_column("bytes", pa.array([each.bytes for _, each in stored], pa.int64()))
            .append_column("sha256", pa.array([each.sha256 for _, each in stored], pa.string()))
        )


def write_vectors(root: Root, build: str, table: pa.Table) -> None:
    """Keep one block of document vectors as ``<first document>.npy``, float32 [n, dimension]."""
    documents = table.column("document").to_numpy()
    flat = table.column(schema.VECTOR).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        np.save(file, flat.reshape(len(documents), -1), allow_pickle=False)
        root.publish(f"{build}/vectors/{documents[0]:012d}.npy", file)


def read_vectors(root: Root, build: str, start: int, stop: int) -> NDArray[np.float32]:
    """Vectors of documents ``start`` up to ``stop``, float32 [n, dimension]."""
    keys = list(root.sizes(f"{build}/vectors/"))
    firsts = np.array([int(Path(key).stem) for key in keys])
    parts = []
    for number in range(np.searchsorted(firsts, start, side="right") - 1, len(keys)):
        first = int(firsts[number])
        if first >= stop:
            break
        raw = root.read(keys[number])
        if raw is None:
            raise StorageError(f"{keys[number]} is gone from {root.uri}")
        part = np.load(io.BytesIO(raw), allow_pickle=False)
        parts.append(part[max(0, start - first) : stop - first])
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
