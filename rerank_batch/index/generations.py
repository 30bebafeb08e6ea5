"""The generations of an index: the manifest is read, published, and old files are removed.

A build goes under its own name and the manifest is swapped when all of it is there, so a reader
sees the old index or the new one. An update is a new generation that names files of older builds
beside its own. What the generation before names stays for the readers that have it, and what
unfinished runs name.
"""

import re
import secrets
from collections.abc import Callable
from contextlib import suppress

from pydantic import ValidationError

from rerank_batch.errors import IndexMismatch
from rerank_batch.index.manifest import FORMAT, UPDATED, Manifest
from rerank_batch.storage import Root

MANIFEST = "manifest.json"


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


def new_build(fingerprint: str) -> str:
    """A name for a build that no other has: the same index built again must not touch the files
    that readers hold."""
    return f"{fingerprint[:16]}-{secrets.token_hex(4)}"


def publish_manifest(
    root: Root,
    manifest: Manifest,
    replaces: bytes | None = None,
    in_use: Callable[[], set[str] | None] | None = None,
) -> Manifest:
    """Make a finished build the index, under a generation's name that it gets here.

    ``replaces`` is the manifest that was there when the build began. Files of older builds are
    removed, but for those that this generation names, the one it replaces, and those ``in_use``,
    which gives the generations that are to stay; where it is None, all of them do.

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
    _remove_old(root, [manifest, *([before] if before else [])], in_use or set)
    return manifest


def _remove_old(root: Root, stay: list[Manifest], in_use: Callable[[], set[str] | None]) -> None:
    """Remove what no generation that stays has a use for; see `publish_manifest`."""
    known = {key: key.split("/")[-1].removesuffix(".json") for key in root.sizes(_GENERATIONS)}
    if set(known.values()) - {each.generation for each in stay}:
        kept = in_use()
        if kept is None:
            return
        for generation in kept & set(known.values()):
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
