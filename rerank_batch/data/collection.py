"""One folder that holds a corpus, queries and judgements: which path of it is which.

Knows the layouts that collections come in, by the names of their files, and opens none of them; of
ir_datasets only that it becomes such a folder.
"""

import glob
from collections.abc import Sequence
from pathlib import PurePosixPath

from rerank_batch.config import OF_COLLECTION, Config, StorageConfig
from rerank_batch.config.paths import cache_folder
from rerank_batch.data.ir_datasets import PREFIX, copy_dataset
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.storage import input_files
from rerank_batch.storage.layouts import SHOWN, STEMS, SUFFIXES, forms, stems_of_split
from rerank_batch.storage.text_streams import PACKED

_ANY_SUFFIX = tuple(sorted({suffix for suffixes in SUFFIXES.values() for suffix in suffixes}))


def with_collection_paths(config: Config) -> Config:
    """The configuration with the paths that were left to ``collection``; others stay as they are.

    Raises:
        ConfigError: a split is named where no judgements are looked for.
        InputError: the collection cannot be read, lacks a part or has it twice; the message says
            what was looked for and what is there.
    """
    sections = {name: getattr(config, name) for name in STEMS}
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
        stems = STEMS[part]
        if part == "qrels":
            stems = stems_of_split(f"collection: {folder}", names, config.split)
        paths[part] = _only_form(folder, part, stems, names)
    return config.model_copy(
        update={
            part: sections[part].model_copy(update={"path": path}) for part, path in paths.items()
        }
    )


def _folder(collection: str, storage: StorageConfig) -> str:
    if collection.startswith(PREFIX):
        return str(copy_dataset(collection.removeprefix(PREFIX), cache_folder(storage.cache)))
    return collection


def _names(collection: str) -> list[str]:
    """The files of the folder, relative to it."""
    files = [PurePosixPath(file.uri) for file in input_files(collection, _ANY_SUFFIX, "collection")]
    folder = PurePosixPath(collection)
    if folder in files or not all(file.is_relative_to(folder) for file in files):
        raise InputError(f"collection: {collection} is no folder")
    return [str(file.relative_to(folder)) for file in files]


def _only_form(collection: str, part: str, stems: tuple[str, ...], names: Sequence[str]) -> str:
    """The one path that the part has."""
    found = sorted(form for stem in stems for form in forms(part, stem, names))
    if len(found) == 1:
        folder = collection.rstrip("/")
        (form,) = found
        return f"{glob.escape(folder)}/{form}" if "*" in form else f"{folder}/{form}"
    if found:
        raise InputError(
            f"collection: {collection} has several of {part}: {', '.join(found)}. "
            f"Name one with --set {part}.path=…"
        )
    plain = [ending for ending in SUFFIXES[part] if not ending.endswith(PACKED)]
    looked = [f"{stem}{ending}" for stem in stems for ending in (*plain, "-*.parquet", "/")]
    tops = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in names})
    more = ", …" if len(tops) > SHOWN else ""
    without = ", or go without: --set qrels=null" if part == "qrels" else ""
    raise InputError(
        f"collection: {collection} has no {part}: looked for {', '.join(looked)} (packed or not); "
        f"found {', '.join(tops[:SHOWN])}{more}. Name it with --set {part}.path=…{without}"
    )
