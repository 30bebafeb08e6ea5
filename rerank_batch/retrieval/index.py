"""The index on disk: its manifest, whether it is the right one, and opening it.

    <index.path>/manifest.json            what is below, with sha256 of every file; written last
    <index.path>/<build>/shards/*.faiss   vectors, one file per shard
    <index.path>/<build>/texts/*.arrow    ids and texts of the same documents

A build goes into its own folder and the manifest is swapped when all of it is there, so a reader
sees the old index or the new one. Knows files and fingerprints, not FAISS and not models.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rerank_batch.config import IndexConfig, digest
from rerank_batch.corpus import TextStore
from rerank_batch.errors import IndexMismatch
from rerank_batch.storage import sha256_file

MANIFEST = "manifest.json"
FORMAT = 1


class ShardEntry(BaseModel):
    """One shard: documents ``start`` up to ``stop``, and its two files with their sha256."""

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    vectors: str
    vectors_sha256: str
    texts: str
    texts_sha256: str


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
    recall_at_100: float | None
    recall_queries: int
    shards: tuple[ShardEntry, ...]


def index_fingerprint(
    config: IndexConfig, corpus: Mapping[str, object], encoder_fingerprint: str
) -> dict[str, Any]:
    """What an index is made of, by name, so that a mismatch can say which part differs."""
    return {
        "corpus": digest(dict(corpus)),
        "encoder": encoder_fingerprint,
        "max_length": config.max_length,
        "kind": config.kind,
        "shards": config.shards,
        "format": FORMAT,
    }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished index.

    Raises:
        IndexMismatch: there is no index, or its manifest is damaged.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise IndexMismatch(f"no index at {folder}; build it with: rerank-batch build-index CONFIG")
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise IndexMismatch(f"{file} is damaged: {error.errors()[0]['msg']}") from None
    if manifest.format != FORMAT:
        raise IndexMismatch(
            f"{file} has format {manifest.format}, this version reads {FORMAT}; build it again"
        )
    return manifest


def read_ingredients(folder: Path) -> dict[str, Any]:
    """What the index says it was made of; see `index_fingerprint`."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return dict(raw.get("made_of", {}))


def check_made_of(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse an index that was built from something else than the configuration names.

    Raises:
        IndexMismatch: the message names every part that differs.
    """
    made_of = read_ingredients(folder)
    differs = [name for name in wanted if made_of.get(name) != wanted[name]]
    if differs:
        details = ", ".join(
            f"{name} (index: {_short(made_of.get(name))}, now: {_short(wanted[name])})"
            for name in differs
        )
        raise IndexMismatch(
            f"the index at {folder} was built from another {details}; "
            "build it again with: rerank-batch build-index CONFIG"
        )


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its sha256.

    Raises:
        IndexMismatch: a file is missing or changed, or lies outside the index.
    """
    for shard in manifest.shards:
        for name, expected in (
            (shard.vectors, shard.vectors_sha256),
            (shard.texts, shard.texts_sha256),
        ):
            file = (folder / name).resolve()
            if not file.is_relative_to(folder.resolve()):
                raise IndexMismatch(f"the manifest of {folder} names {name!r}, outside the index")
            if not file.is_file():
                raise IndexMismatch(f"{file} is missing; build the index again")
            if sha256_file(file) != expected:
                raise IndexMismatch(
                    f"{file} is not what was built (sha256 differs); build it again"
                )


def open_texts(folder: Path, manifest: Manifest) -> TextStore:
    """The text store of an index."""
    return TextStore(
        [folder / shard.texts for shard in manifest.shards],
        [(shard.start, shard.stop) for shard in manifest.shards],
    )


def publish_manifest(folder: Path, manifest: Manifest, made_of: Mapping[str, Any]) -> None:
    """Make a finished build the index, then remove the builds it replaces."""
    payload = {**manifest.model_dump(mode="json"), "made_of": dict(made_of)}
    staged = folder / f".{MANIFEST}.new"
    staged.write_text(json.dumps(payload, indent=1, sort_keys=True), encoding="utf-8")
    staged.replace(folder / MANIFEST)
    current = {Path(shard.vectors).parts[0] for shard in manifest.shards}
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in current:
            shutil.rmtree(entry)


def _short(value: object) -> str:
    return str(value)[:12]
