"""One folder that holds a corpus, queries and judgements: which path of it is which.

Knows the layouts that collections come in, by the names of their files, and opens none of them; of
ir_datasets only that it becomes such a folder.
"""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from rerank_batch.config import OF_COLLECTION, Config, StorageConfig
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.ir_datasets_copy import PREFIX, copied
from rerank_batch.paths import cache_folder
from rerank_batch.storage import input_files

_STEMS = {"corpus": ("corpus",), "queries": ("queries", "query_log"), "qrels": ("qrels",)}
_SUFFIXES = {
    "corpus": (".jsonl", ".jsonl.gz", ".parquet"),
    "queries": (".jsonl", ".jsonl.gz", ".parquet"),
    "qrels": (".tsv", ".qrels", ".txt", ".parquet"),
}
_ANY_SUFFIX = tuple(sorted({suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}))
_SPLIT = re.compile(r"qrels/(?P<split>[^/]+?)(-\d+-of-\d+(?=\.parquet))?(\.[a-z]+|/.*)")
_DEFAULT_SPLIT = "test"
_SHOWN = 8


def located(config: Config) -> Config:
    """The configuration with the paths that were left to ``collection``; others stay as they are.

    Raises:
        ConfigError: a split is named where no judgements are looked for.
        InputError: the collection cannot be read, lacks a part or has it twice; the message says
            what was looked for and what is there.
    """
    sections = {name: getattr(config, name) for name in _STEMS}
    left = [name for name, part in sections.items() if part and part.path == OF_COLLECTION]
    if config.split is not None and "qrels" not in left:
        raise ConfigError(
            f"split ({config.split}) chooses among the judgements of a collection, and none are "
            "looked for here: leave split out, or qrels.path"
        )
    if config.collection is None or not left:
        return config
    folder = _folder(config.collection, config.storage)
    names = _names(folder)
    paths = {}
    for part in left:
        stems = _STEMS[part] if part != "qrels" else _stems_of_split(folder, names, config.split)
        paths[part] = _only_form(folder, part, stems, names)
    return config.model_copy(
        update={
            part: sections[part].model_copy(update={"path": path}) for part, path in paths.items()
        }
    )


def _folder(collection: str, storage: StorageConfig) -> str:
    if collection.startswith(PREFIX):
        return str(copied(collection.removeprefix(PREFIX), cache_folder(storage.cache)))
    return collection


def _names(collection: str) -> list[str]:
    """The files of the folder, relative to it."""
    files = [PurePosixPath(file.uri) for file in input_files(collection, _ANY_SUFFIX, "collection")]
    folder = PurePosixPath(collection)
    if folder in files or not all(file.is_relative_to(folder) for file in files):
        raise InputError(f"collection: {collection} is no folder")
    return [str(file.relative_to(folder)) for file in files]


def _stems_of_split(collection: str, names: Sequence[str], wanted: str | None) -> tuple[str, ...]:
    """How the files of the judgements begin: those of a split, or those of a whole collection."""
    readable = [name for name in names if name.endswith(_SUFFIXES["qrels"])]
    splits = sorted({match["split"] for match in map(_SPLIT.fullmatch, readable) if match})
    unsplit = _forms("qrels", "qrels", [name for name in readable if "/" not in name])
    if wanted is None and (unsplit or not splits):
        return ("qrels",)
    split = wanted or (splits[0] if len(splits) == 1 else _DEFAULT_SPLIT)
    if split not in splits:
        choice = "nothing is split: leave split out"
        if splits:
            choice = f"choose among {', '.join(splits)} (--set split=…)"
        raise InputError(
            f"collection: {collection} has no judgements of the split {split!r}; {choice}"
        )
    return (f"qrels/{split}",)


def _only_form(collection: str, part: str, stems: tuple[str, ...], names: Sequence[str]) -> str:
    """The one path that the part has."""
    forms = [form for stem in stems for form in _forms(part, stem, names)]
    if len(forms) == 1:
        folder = collection.rstrip("/")
        (form,) = forms
        return f"{glob.escape(folder)}/{form}" if "*" in form else f"{folder}/{form}"
    if forms:
        raise InputError(
            f"collection: {collection} has several of {part}: {', '.join(forms)}. "
            f"Name one with --set {part}.path=…"
        )
    endings = (*_SUFFIXES[part], "-*-of-*.parquet", "/")
    looked = [f"{stem}{ending}" for stem in stems for ending in endings]
    tops = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in names})
    more = ", …" if len(tops) > _SHOWN else ""
    without = ", or go without: --set qrels=null" if part == "qrels" else ""
    raise InputError(
        f"collection: {collection} has no {part}: looked for {', '.join(looked)}; found "
        f"{', '.join(tops[:_SHOWN])}{more}. Name it with --set {part}.path=…{without}"
    )


def _forms(part: str, stem: str, names: Iterable[str]) -> list[str]:
    """Every form in which the files have what a stem names: a file, numbered files, a folder."""
    whole = {f"{stem}{suffix}" for suffix in _SUFFIXES[part]}
    numbered = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.parquet")
    found = set()
    for name in names:
        if name in whole:
            found.add(name)
        elif numbered.fullmatch(name):
            found.add(f"{glob.escape(stem)}-[0-9]*-of-*.parquet")
        elif name.startswith(f"{stem}/") and name.endswith(_SUFFIXES[part]):
            found.add(stem)
    return sorted(found)
