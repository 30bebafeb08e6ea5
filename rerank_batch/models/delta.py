"""Deltas: a fine-tuned model as its change of a base model, in few numbers or few bits.

    delta.json          the base and its sha256, what becomes of every tensor, sha256 of the result
    delta.safetensors   of a changed matrix one of
                          NAME.up [out, rank] and NAME.down [rank, in], float16: their product
                          NAME.steps, whole numbers of 4 or 8 bits, and NAME.step [out], float16
                        and any other tensor that changed whole, as NAME
    model/              the trained model's other files: settings and tokenizer
    README.md           the trained model's card

`merged` makes an ordinary model folder of it once, in the node's cache, so that whatever loads
models knows nothing of this. The result is the same to the last bit on every machine: a product of
two float16 numbers is a whole multiple of 2^-48, and their sums stay below 32, so that float64
holds each of them exactly in whatever order they are added.

Low rank is exact for what was trained as such (LoRA). Full fine-tuning changes every direction a
little, which few bits of every number hold better: that a fine-tuned model is worth few of them is
Liu et al., "BitDelta: Your Fine-Tune May Only Be Worth One Bit", 2024
(https://arxiv.org/abs/2402.10193).

Knows tensors by name, and no model library.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rerank_batch.errors import ModelError, StorageError
from rerank_batch.schema import JsonObject

DELTA = "delta.json"

_TENSORS = "delta.safetensors"
_FILES = "model"
_CARD = "README.md"
_FORMAT = 1
_KEYS = ("format", "base", "base_sha256", "tensors", "sha256")
_EXACT_BELOW = 32.0
_SAME, _LOW_RANK, _STEPS, _WHOLE = "same", "low-rank", "steps", "whole"

_CLIPS = np.linspace(0.3, 1.0, 29)
"""Of a row's largest change, where to cut: what lies beyond costs less than coarse steps."""

Tensor = NDArray[Any]


@dataclass(frozen=True)
class DeltaFormat:
    """What is kept of a changed matrix: so many singular values, or so many bits of each number."""

    rank: int | None = None
    bits: Literal[4, 8] = 4

    def __str__(self) -> str:
        return f"{self.bits} bits" if self.rank is None else f"rank {self.rank}"


@dataclass(frozen=True)
class DeltaReport:
    """What a delta came to: its bytes, and by matrix the share of the change that is not kept (of
    the Frobenius norm)."""

    bytes: int
    errors: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest share that is lost."""
        return max(self.errors.values(), default=0.0)


def is_delta(folder: Path) -> bool:
    """Whether a folder holds a delta and no whole model."""
    return (folder / DELTA).is_file()


def write_delta(
    trained: Path, base: Path, base_location: str, kept: DeltaFormat, out: Path
) -> DeltaReport:
    """Write what ``trained`` changed of ``base`` to ``out``, a new folder.

    Tensors are matched by name, with or without the prefix of the encoder in the model. Vectors
    that changed, what the base does not have, and matrices smaller than ``kept`` are kept whole.

    Raises:
        ModelError: a folder holds no weights in one file, or the change is no delta of that base.
        StorageError: ``out`` exists already.
    """
    new, old = _weights(trained), _weights(base)
    names = _matched(new, old)
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, JsonObject] = {}
    errors: dict[str, float] = {}
    for name in sorted(new):
        tensor, before = new[name], old.get(names.get(name, ""))
        found: JsonObject = {"is": _WHOLE}
        if before is not None and before.shape == tensor.shape:
            found["of"] = names[name]
            if np.array_equal(before, tensor):
                found["is"] = _SAME
            elif tensor.ndim == 2 and (kept.rank or 0) * sum(tensor.shape) < 2 * tensor.size:
                change = tensor.astype(np.float64) - before.astype(np.float64)
                found["is"], parts = _compressed(change, kept)
                tensors |= {f"{name}.{part}": values for part, values in parts.items()}
                missed = np.linalg.norm(change - _change(found["is"], tensors, name, tensor.shape))
                errors[name] = float(missed / np.linalg.norm(change))
        if found["is"] == _WHOLE:
            found.pop("of", None)
            tensors[name] = tensor
        kinds[name] = found
    if not any("of" in kind for kind in kinds.values()):
        raise ModelError(f"{trained} shares no tensor with {base}: it was not trained from it")
    try:
        out.mkdir(parents=True, exist_ok=False)
        save_file(tensors, out / _TENSORS)
        _copy_files(trained, out / _FILES)
        if (trained / _CARD).is_file():
            shutil.copyfile(trained / _CARD, out / _CARD)
    except FileExistsError:
        raise StorageError(f"{out} exists already") from None
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error}") from None
    manifest = {
        "format": _FORMAT,
        "base": base_location,
        "base_sha256": _digest(old),
        "kept": str(kept),
        "tensors": kinds,
    }
    made = _merge(old, tensors, kinds, trained)
    text = json.dumps({**manifest, "sha256": _digest(made)}, indent=1)
    (out / DELTA).write_text(text + "\n", encoding="utf-8")
    return DeltaReport(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()), errors)


def base_of(delta: Path) -> str:
    """The location of the model that a delta belongs to.

    Raises:
        ModelError: the delta is damaged, or of a newer form.
    """
    return str(_manifest(delta)["base"])


def merged(delta: Path, base: Path, cache: Path) -> Path:
    """The whole model as an ordinary folder under ``cache``, made when it is first asked for.

    Raises:
        ModelError: the delta is damaged, or the base is not the one it was made from.
        StorageError: the cache cannot be written.
    """
    manifest = _manifest(delta)
    content = hashlib.sha256((delta / DELTA).read_bytes())
    for file in sorted((delta / _FILES).iterdir()):
        content.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    folder = cache / content.hexdigest()[:32]
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _write_merged(delta, manifest, base, folder)
    except OSError as error:
        raise StorageError(f"{cache} cannot be written: {error}") from error
    return folder


def _write_merged(delta: Path, manifest: Mapping[str, Any], base: Path, folder: Path) -> None:
    weights = _weights(base)
    if _digest(weights) != manifest["base_sha256"]:
        raise ModelError(
            f"{delta} belongs to other weights than {manifest['base']} has now: install the "
            "version that it was made from"
        )
    try:
        tensors = load_file(delta / _TENSORS)
        made = _merge(weights, tensors, manifest["tensors"], delta)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{delta / _TENSORS} is damaged: {error}") from None
    if _digest(made) != manifest["sha256"]:
        raise ModelError(f"{delta} is damaged: what it makes is not what it was made from")
    partial = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        _copy_files(delta / _FILES, partial)
        save_file(made, partial / "model.safetensors", metadata={"format": "pt"})
        partial.chmod(0o755)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _compressed(change: NDArray[np.float64], kept: DeltaFormat) -> tuple[str, dict[str, Tensor]]:
    if kept.rank is None:
        steps, step = _steps(change, kept.bits)
        return _STEPS, {"steps": steps, "step": step}
    up, down = _factors(change, kept.rank)
    return _LOW_RANK, {"up": up, "down": down}


def _change(
    kind: str, tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """What is added to the base's matrix of that name and shape."""
    if kind == _LOW_RANK:
        return _product(tensors[f"{name}.up"], tensors[f"{name}.down"])
    steps, step = tensors[f"{name}.steps"], tensors[f"{name}.step"]
    if steps.dtype == np.uint8:
        # Two numbers in a byte, the first in the upper half, each with 8 added.
        whole = np.stack([steps >> 4, steps & 15], axis=-1).reshape(len(steps), -1)
        steps = whole[:, : shape[1]].astype(np.int8) - 8
    change: NDArray[np.float64] = steps.astype(np.float64) * step.astype(np.float64)[:, None]
    return change


def _steps(change: NDArray[np.float64], bits: int) -> tuple[Tensor, Tensor]:
    """Each row as whole steps of its own size, cut where the squared error is least."""
    most = 2 ** (bits - 1) - 1
    largest = np.abs(change).max(axis=1)
    best_error = np.full(len(change), np.inf)
    steps = np.zeros(change.shape, np.int8)
    size = np.zeros(len(change), np.float16)
    for clip in _CLIPS:
        step = (clip * largest / most).astype(np.float16)
        exact = np.where(step > 0, step, 1).astype(np.float64)[:, None]
        found = np.clip(np.rint(change / exact), -most, most)
        error = ((change - found * step.astype(np.float64)[:, None]) ** 2).sum(axis=1)
        better = error < best_error
        best_error[better], size[better] = error[better], step[better]
        steps[better] = found[better].astype(np.int8)
    if bits == 8:
        return steps, size
    even = (np.pad(steps, ((0, 0), (0, change.shape[-1] % 2))) + 8).astype(np.uint8)
    return even[:, ::2] << 4 | even[:, 1::2], size


def _factors(change: NDArray[np.float64], rank: int) -> tuple[Tensor, Tensor]:
    """The change as up @ down, both float16, each with the roots of the singular values."""
    left, values, right = np.linalg.svd(change, full_matrices=False)
    roots = np.sqrt(values[:rank])
    up = (left[:, :rank] * roots).astype(np.float16)
    down = (roots[:, None] * right[:rank]).astype(np.float16)
    if not _product(np.abs(up), np.abs(down)).max() < _EXACT_BELOW:
        raise ModelError("the change is too large for a delta in float16")
    return up, down


def _product(up: Tensor, down: Tensor) -> NDArray[np.float64]:
    product: NDArray[np.float64] = up.astype(np.float64) @ down.astype(np.float64)
    return product


def _merge(
    base: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    kinds: Mapping[str, Mapping[str, Any]],
    delta: Path,
) -> dict[str, Tensor]:
    made = {}
    for name, kind in kinds.items():
        if kind["is"] == _WHOLE:
            made[name] = tensors[name]
        elif kind["is"] == _SAME:
            made[name] = base[kind["of"]]
        elif kind["is"] in (_LOW_RANK, _STEPS):
            before = base[kind["of"]]
            change = _change(kind["is"], tensors, name, before.shape)
            made[name] = (before.astype(np.float64) + change).astype(before.dtype)
        else:
            raise ModelError(f"{delta} is of a form that this version does not know")
    return made


def _matched(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, str]:
    """The base's name of each new tensor: the same, or the same without the first word."""
    found = {}
    for name in new:
        for candidate in (name, name.partition(".")[2], f"{name.partition('.')[0]}.{name}"):
            if candidate in old:
                found[name] = candidate
                break
    return found


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    try:
        return dict(load_file(file))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no model.safetensors; a delta is over one file") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes: whatever order or file they came in."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        found.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()


def _copy_files(source: Path, out: Path) -> None:
    """Settings and tokenizer, without weights and what only people read."""
    out.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix in (".json", ".txt", ".model", ".jinja"):
            shutil.copyfile(file, out / file.name)


def _manifest(delta: Path) -> JsonObject:
    try:
        manifest = json.loads((delta / DELTA).read_text(encoding="utf-8"))
        missing = [key for key in _KEYS if key not in manifest]
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{delta / DELTA} is damaged: {error}") from None
    if missing or manifest["format"] != _FORMAT:
        raise ModelError(f"{delta} is of a form that this version does not know")
    return dict(manifest)
