"""The index in storage: its manifest, whether it is the right one, and opening it.

    <index.path>/manifest.json            what is below, with sha256 of every file; written last
    <index.path>/<build>/shards/*.faiss   vectors, one file per shard
    <index.path>/<build>/texts/*.arrow    ids and texts of the same documents
    <index.path>/<build>/bm25/*/*.arrow   their words, with ``index.bm25``
    <index.path>/<build>/digests/*.arrow  ids and digests of the same documents
    <index.path>/<build>/numbers.npy      after an update: of every row the number of its document
    <index.path>/<build>/rows.npy         after an update: of every document its row
    <index.path>/generations/*.json       every manifest that may still have readers, by its name

A build goes under its own name and the manifest is swapped when all of it is there, so a reader
sees the old index or the new one. An update is a new generation that names files of older builds
beside its own. Documents are numbered in the order of their ids, whatever shard they are in, and a
row whose document is gone has the number -1: that is the mask of what was deleted. What the
generation before names stays for the readers that have it, and what unfinished runs name.
Knows files and fingerprints, not FAISS and not models.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from rerank_batch.config import IndexConfig, digest
from rerank_batch.data.text_store import TextStore
from rerank_batch.errors import IndexMismatch
from rerank_batch.storage import NodeCache, Root, Wanted, sha256_file

MANIFEST = "manifest.json"
FORMAT = 3

UPDATED = 4
"""The format of what an update made: readers of `FORMAT` alone know no rows that are gone."""

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
    """One shard: rows ``start`` up to ``stop``, and its files; ``postings`` are for BM25.

    ``digests`` are not there in an index of a version that knew no updates.
    """

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    vectors: IndexFile
    texts: IndexFile
    postings: IndexFile | None = None
    digests: IndexFile | None = None


class WordShard(BaseModel):
    """BM25 postings of documents ``start`` up to ``stop``."""

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    postings: IndexFile


class Numbering(BaseModel):
    """Which row holds which document after an update.

    ``numbers`` is int64 [rows], -1 where the document is gone; ``rows`` is int64 [documents].
    """

    model_config = ConfigDict(frozen=True)

    numbers: IndexFile
    rows: IndexFile


class Manifest(BaseModel):
    """Everything a reader needs to trust and open an index.

    Without a ``numbering`` row n holds document n, and the postings are those of the shards. An
    update cuts words another way than vectors: then the postings are ``words``.
    """

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
    generation: str = ""
    numbering: Numbering | None = None
    words: tuple[WordShard, ...] | None = None

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Rows of every shard, half open."""
        return tuple((shard.start, shard.stop) for shard in self.shards)

    def word_shards(self) -> tuple[WordShard, ...]:
        """The BM25 shards that are there."""
        if self.words is not None:
            return self.words
        return tuple(
            WordShard(start=shard.start, stop=shard.stop, postings=shard.postings)
            for shard in self.shards
            if shard.postings is not None
        )

    def part(self, start: int, stop: int) -> "Manifest":
        """The shards ``start`` up to ``stop`` with their rows, and the BM25 shards that go with
        them: each with one shard, spread over all evenly where there are not as many.

        Only what is searched: documents and their texts are those of the whole.
        """
        update: dict[str, Any] = {"shards": self.shards[start:stop]}
        if self.words is not None:
            update["words"] = tuple(
                words
                for number, words in enumerate(self.words)
                if start <= number * len(self.shards) // len(self.words) < stop
            )
        return self.model_copy(update=update)

    def files_of_all_parts(self) -> Iterable[IndexFile]:
        """Those that a node reads whichever shards it searches: texts, and what numbers rows."""
        yield from (shard.texts for shard in self.shards)
        if self.numbering is not None:
            yield from (self.numbering.numbers, self.numbering.rows)

    def files(self) -> Iterable[IndexFile]:
        """Every file that it names."""
        for shard in self.shards:
            yield from (shard.vectors, shard.texts)
            if shard.digests is not None:
                yield shard.digests
        yield from (words.postings for words in self.word_shards())
        if self.numbering is not None:
            yield from (self.numbering.numbers, self.numbering.rows)


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


def read_manifest(root: Root, generation: str | None = None) -> Manifest:
    """The manifest of a finished index; that of a generation, where it is still there.

    Raises:
        IndexMismatch: there is no index, or its manifest is damaged.
    """
    raw = root.read(_generation_key(generation)) if generation else None
    raw = raw or root.read(MANIFEST)
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
    if manifest.format not in (FORMAT, UPDATED):
        raise IndexMismatch(
            f"{root.path(MANIFEST)} has format {manifest.format}, this version reads {FORMAT} and "
            f"{UPDATED}; build it again"
        )
    for file in manifest.files():
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


def new_build(fingerprint: str) -> str:
    """A name for a build that no other has: the same index built again must not touch the files
    that readers hold."""
    return f"{fingerprint[:16]}-{secrets.token_hex(4)}"


def publish_manifest(
    root: Root,
    manifest: Manifest,
    replaces: bytes | None = None,
    named: Callable[[], set[str] | None] | None = None,
) -> Manifest:
    """Make a finished build the index, under a generation's name that it gets here.

    ``replaces`` is the manifest that was there when the build began. Files of older builds are
    removed, but for those that this generation names, the one it replaces, and those of ``named``,
    which is asked for the generations that are to stay; where it does not know, all of them do.

    Raises:
        IndexMismatch: another build was finished in the meantime.
    """
    before = None
    if replaces is not None:
        with suppress(ValidationError):  # a damaged one is read by nobody
            before = Manifest.model_validate_json(replaces)
    stay = [manifest, *([before] if before else [])]
    builds = [*manifest.builds, *(f.key.split("/")[0] for each in stay for f in each.files())]
    manifest = manifest.model_copy(
        update={
            "generation": new_build(manifest.fingerprint),
            "builds": tuple(dict.fromkeys(builds)),
        }
    )
    raw = manifest.model_dump_json(indent=1).encode()
    root.create_once(_generation_key(manifest.generation), raw)
    if not root.swap(MANIFEST, raw, expected=replaces):
        root.delete([_generation_key(manifest.generation)])
        raise IndexMismatch(f"another build at {root.uri} was finished meanwhile; run it again")
    _remove_old(root, [manifest, *([before] if before else [])], named or set)
    return manifest


def _remove_old(root: Root, stay: list[Manifest], named: Callable[[], set[str] | None]) -> None:
    """Remove what no generation that stays has a use for; see `publish_manifest`."""
    known = {key: key.split("/")[-1].removesuffix(".json") for key in root.sizes(_GENERATIONS)}
    if set(known.values()) - {each.generation for each in stay}:
        found = named()
        if found is None:
            return
        for generation in found & set(known.values()):
            raw = root.read(_generation_key(generation))
            with suppress(ValidationError):  # gone, or damaged: nobody can go on with it
                stay.append(Manifest.model_validate_json(raw or b""))
    names = {each.generation for each in stay}
    keys = {file.key for each in stay for file in each.files()}
    gone = [key for key, name in known.items() if name not in names]
    for build in filter(_BUILD.match, root.folders("")):
        gone += [key for key in root.sizes(f"{build}/") if key not in keys]
    root.delete(gone)


_GENERATIONS = "generations/"
_BUILD = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\Z")


def _generation_key(generation: str) -> str:
    return f"{_GENERATIONS}{generation}.json"


def _short(value: object) -> str:
    if isinstance(value, dict):
        return digest(value)[:12]
    return str(value)[:12]
