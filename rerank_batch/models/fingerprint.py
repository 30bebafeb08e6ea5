"""Pins of models: the commit and the fingerprint of the files that a run began with.

The driver pins the model (`pin_model`): every worker opens that commit of a hub model, and compares
what it opened with the pinned fingerprint (`pinned_model`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rerank_batch.config import digest
from rerank_batch.errors import ModelError
from rerank_batch.models.location import MODEL_FILES, model_folder, pinned_location
from rerank_batch.storage import file_hashes


@dataclass(frozen=True)
class ModelPin:
    """The model that a run works with: where it lies, of a hub model with its commit, and the
    fingerprint of its files."""

    location: str
    fingerprint: str


class ModelChanged(ModelError):
    """The files of a model are not those that the run began with."""


def pin_model(location: str) -> tuple[ModelPin, Path]:
    """What the location names at this moment, for every worker of a run; and its folder here.

    Raises:
        ModelError, StorageError: see `model_folder`.
    """
    pinned = pinned_location(location)
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
        and file.suffix in MODEL_FILES
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
