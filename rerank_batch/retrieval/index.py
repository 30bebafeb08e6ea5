"""The index in storage: its manifest, whether it is the right one, and opening it.

    <index.path>/manifest.json            what is below, with sha256 of every file; written last
    <index.path>/<build>/shards/*.faiss   vectors, one file per shard
    <index.path>/<build>/texts/*.arrow    ids and texts of the same documents
    <index.path>/<build>/bm25/*/*.arrow   their words, with ``index.bm25``

A build goes under its own name and the manifest is swapped when all of it is there, so a reader
sees the old index or the new one; the build before stays for the readers that have it. Knows files
and fingerprints, not FAISS and not models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rerank_batch.config import IndexConfig, digest
from rerank_batch.corpus import TextStore
from rerank_batch.errors import IndexMismatch
from rerank_batch.storage import NodeCache, Root, Wanted, sha256_file

MANIFEST = "manifest.json"
FORMAT = 3

BM25 = "bm25"
"""The part of what an index is made of that its words are."""


class IndexFile(BaseModel):
    """A file of an index: its key under the index, bytes, sha256."""

    model_config = ConfigDict(frozen=True)

    key: str
    bytes: int
    sha256: str

    @property
    def wanted(self) -> Wanted:
        """The same, as the node cache asks for it."""
        return Wanted(self.key, self.bytes, self.sha256)


class ShardEntry(BaseModel):
    """One shard: documents ``start`` up to ``stop``, and its files; ``postings`` are for BM25."""

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    vectors: IndexFile
    texts: IndexFile
    postings: IndexFile | None = None


class Manifest(BaseModel):
    """Everything a reader needs to trust and open an index."""

    model_config = ConfigDict(frozen=True)

    format: int
    fingerprint: str
    kind: str
    metric: str
    dimension: int
    documents: int
    dropped: dict[str, int]
    encoder: str
    encoder_mode: dict[str, Any]
    recall_at_100: float | None
    recall_queries: int
    made_of: dict[str, Any]
    builds: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    bm25: dict[str, Any] | None = None


@dataclass(frozen=True)
class Index:
    """A finished index and how a process gets at its files; small and picklable."""

    root: Root
    manifest: Manifest
    cache: NodeCache

    def vector_files(self) -> list[Path]:
        """Local files of the shards, in order; downloaded where they must be."""
        return self._local(shard.vectors for shard in self.manifest.shards)

    def posting_files(self) -> list[Path]:
        """Local files of the BM25 shards, in order.

        Raises:
            IndexMismatch: the index has none.
        """
        files = [shard.postings for shard in self.manifest.shards if shard.postings is not None]
        if len(files) < len(self.manifest.shards) or self.manifest.bm25 is None:
            raise IndexMismatch(
                f"the index at {self.root.uri} has no BM25 shards; "
                "build them with: rerank-batch build-index CONFIG"
            )
        return self._local(files)

    def texts(self) -> TextStore:
        """The text store."""
        return TextStore(
            self._local(shard.texts for shard in self.manifest.shards),
            [(shard.start, shard.stop) for shard in self.manifest.shards],
        )

    def _local(self, files: Iterable[IndexFile]) -> list[Path]:
        return self.cache.fetch(self.root, [file.wanted for file in files])


def index_fingerprint(
    config: IndexConfig, corpus: Mapping[str, object], encoder_fingerprint: str
) -> dict[str, Any]:
    """What an index is made of, by name, so that a mismatch can say which part differs.

    BM25 is a part of it where it is asked for: an index that has it serves those who do not ask.
    """
    made_of: dict[str, Any] = {
        "corpus": digest(dict(corpus)),
        "encoder": encoder_fingerprint,
        "max_length": config.max_length,
        "precision": config.precision,
        "kind": config.kind,
        "shards": config.shards,
        "format": FORMAT,
    }
    if config.bm25 is not None:
        made_of[BM25] = config.bm25.model_dump(mode="json")
    return made_of


def read_manifest(root: Root) -> Manifest:
    """The manifest of a finished index.

    Raises:
        IndexMismatch: there is no index, or its manifest is damaged.
    """
    raw = root.read(MANIFEST)
    if raw is None:
        raise IndexMismatch(
            f"no index at {root.uri}; build it with: rerank-batch build-index CONFIG"
        )
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        raise IndexMismatch(
            f"{root.path(MANIFEST)} is damaged or of another version "
            f"({'.'.join(map(str, problem['loc']))}: {problem['msg']}); build it again"
        ) from None
    if manifest.format != FORMAT:
        raise IndexMismatch(
            f"{root.path(MANIFEST)} has format {manifest.format}, this version reads {FORMAT}; "
            "build it again"
        )
    for file in _files(manifest):
        if file.key.startswith("/") or ".." in file.key.split("/"):
            raise IndexMismatch(f"the manifest of {root.uri} names {file.key!r}, outside the index")
    return manifest


def check_made_of(root: Root, manifest: Manifest, wanted: Mapping[str, Any]) -> None:
    """Refuse an index that was built from something else than the configuration names.

    Raises:
        IndexMismatch: the message names every part that differs.
    """
    made_of = manifest.made_of
    differs = [name for name in wanted if made_of.get(name) != wanted[name]]
    if differs:
        details = ", ".join(
            f"{name} (index: {_short(made_of.get(name))}, now: {_short(wanted[name])})"
            for name in differs
        )
        raise IndexMismatch(
            f"the index at {root.uri} was built from another {details}; "
            "build it again with: rerank-batch build-index CONFIG"
        )


def verify_files(index: Index) -> None:
    """Check every file before anything is loaded: on this machine by its sha256.

    In a bucket by size alone: there the node cache compares the sha256 with every download.

    Raises:
        IndexMismatch: a file is missing or changed.
        ConfigError: the index does not fit the node cache.
    """
    root = index.root
    files = list(_files(index.manifest))
    index.cache.check_room(root, [file.wanted for file in files])
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


def publish_manifest(root: Root, manifest: Manifest) -> None:
    """Make a finished build the index; builds before the one it replaces are removed.

    Raises:
        IndexMismatch: another build was finished at the same time.
    """
    current = root.read(MANIFEST)
    if not root.swap(MANIFEST, manifest.model_dump_json(indent=1).encode(), expected=current):
        raise IndexMismatch(f"another build at {root.uri} was finished in this moment; try again")
    for build in root.folders(""):
        if build not in manifest.builds:
            root.delete(list(root.sizes(f"{build}/")))


def _files(manifest: Manifest) -> Iterable[IndexFile]:
    for shard in manifest.shards:
        yield from (shard.vectors, shard.texts)
        if shard.postings is not None:
            yield shard.postings


def _short(value: object) -> str:
    if isinstance(value, dict):
        return digest(value)[:12]
    return str(value)[:12]
