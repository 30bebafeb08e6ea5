"""What an index is made of, and the check that it is what a configuration names."""

from collections.abc import Mapping
from typing import Any

from rerank_batch.config import IndexConfig, Ingredients, digest
from rerank_batch.errors import IndexMismatch
from rerank_batch.index.manifest import FORMAT, Manifest
from rerank_batch.storage import Root

BM25 = "bm25"
"""The part of what an index is made of that its words are."""


def index_fingerprint(
    config: IndexConfig, corpus: Mapping[str, object], encoder_fingerprint: str
) -> dict[str, Any]:
    """What an index is made of, by name, so that an error can name the part that differs.

    BM25 is a part of it where it is configured: an index with it also serves runs without it.
    """
    made_of: Ingredients = {
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


def _short(value: object) -> str:
    if isinstance(value, dict):
        return digest(value)[:12]
    return str(value)[:12]
