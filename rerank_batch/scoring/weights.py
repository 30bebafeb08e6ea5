"""Whether the weights that a network uses are those of the model's files.

The model libraries give a weight that the files lack random numbers and go on; its scores are then
noise that looks like scores. Every load goes through `weights_of`, which takes the libraries' own
account of what they found, after their renaming of older names, and refuses what does not fit. What
may be absent is listed here, each with its reason. Knows no family.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from rerank_batch.errors import ModelError
from rerank_batch.models.settings import json_file
from rerank_batch.schema import JsonObject
from rerank_batch.scoring.loading import loading, quiet
from rerank_batch.scoring.weight_hints import hint


@dataclass(frozen=True)
class Exempt:
    """Names of weights, as a regular expression, and why it does no harm that they do not match."""

    names: str
    reason: str


ABSENT = (
    Exempt(
        r"(^|\.)(position_ids|token_type_ids|inv_freq|original_inv_freq)$",
        "buffers that the network computes from its config.json",
    ),
    Exempt(r"(^|\.)num_batches_tracked$", "a counter that only training reads"),
)
"""What the files of any network may lack. Tied weights are none of it: the library ties them first,
and counts both as missing where neither is there."""

ABSENT_IN_ENCODERS = (
    Exempt(r"(^|\.)pooler\.", "an encoder's pooler: only the vectors of its tokens are read"),
)
"""What the files of a network without a head may lack besides."""

UNREAD = (
    Exempt(
        r"(^|\.)(position_ids|token_type_ids|inv_freq|(cos|sin)_cached|masked_bias|attn\.bias)$",
        "buffers of older versions, which the network computes",
    ),
    Exempt(
        r"^deberta\.embeddings\.(position_embeddings\.weight|word_embeddings\._weight)$",
        "published beside DeBERTa's weights; its positions are relative",
    ),
    Exempt(r"(^|\.)pooler\.", "a pooler, in the files of a network that reads none"),
    Exempt(r"(^|\.)cls\.(predictions|seq_relationship)\.", "BERT's heads of pretraining"),
    Exempt(r"^(lm_head\.|final_logits_bias$)", "a head of language modelling"),
    Exempt(r"^vocab_(transform|layer_norm|projector)\.", "DistilBERT's head of pretraining"),
    Exempt(r"^(generator|discriminator)_(predictions|lm_head)\.", "ELECTRA's pretraining"),
    Exempt(r"^(lm|mask)_predictions\.", "DeBERTa's heads of pretraining"),
    Exempt(r"^(predictions|sop_classifier)\.", "ALBERT's heads of pretraining"),
    Exempt(r"^decoder\.(weight|bias)$", "ModernBERT's matrix of pretraining"),
)
"""What may stand in the files of any network and is not read by it. The files of a network without
a head may hold any head: nothing of the network lies beside the parts that it has."""

FROM_SETTINGS = ("WordWeights",)
"""Modules of sentence-transformers whose numbers are those of their config.json."""

_FLOATS = ("F64", "F32", "F16", "BF16")
_LOADED = re.compile(r"model(-\d+-of-\d+)?\.safetensors$")
_ADAPTER = "adapter_config.json"
_NAMED = 3

_lock = RLock()


@contextmanager
def weights_of(
    folder: Path, what: str, *, fresh_head: bool = False, unread: Sequence[Exempt] = ()
) -> Iterator[None]:
    """Around the code that loads a network: every weight that it uses is one of the files.

    ``unread`` are names that this network leaves in its files. With ``fresh_head`` the head above
    the encoder may be missing, whole: a training that begins is to draw one.

    Raises:
        ModelError: it does not load as ``what``, or weights do not fit; the message gives names,
            how many there are, and what kind of files it may be.
    """
    with loading(folder, what), quiet():
        _refuse_adapter(folder)
        _refuse_no_floats(folder)
        _refuse_two_values(folder)
        with _loads() as loads:
            yield
        for model, found in loads:
            _refuse_misfits(folder, model, found, fresh_head, unread)


def check_modules(folder: Path, model: Any) -> None:
    """Refuse weights of sentence-transformers' own modules that stand in no file, or do not fit.

    They are compared by value: some of its models add a random layer where the files have none.

    Raises:
        ModelError: the message names the first of them.
    """
    if not any(map(_has_transformer, model.children())):
        return  # tables of vectors, which are folded as they are read; not run here
    _refuse_other_widths(folder, model)
    stored: dict[tuple[int, ...], list[torch.Tensor]] | None = None
    fresh = []
    for number, module in model.named_children():
        if type(module).__name__ in FROM_SETTINGS or _has_transformer(module):
            continue
        for name, weight in module.named_parameters():
            stored = _tensors(folder, model) if stored is None else stored
            here = weight.detach().cpu()
            same = (each.to(here.dtype) for each in stored.get(tuple(here.shape), []))
            if not any(_is_same(here, each) for each in same):
                fresh.append(f"{number}_{type(module).__name__}.{name}")
    if fresh:
        raise ModelError(
            f"{folder}: {_listed(fresh, 'is', 'are')} in none of its files and would be random: "
            "the files are not whole, or modules.json is missing"
        )


Load = tuple[Any, JsonObject]
"""A network, and what transformers says of its keys."""


@contextmanager
def _loads() -> Iterator[list[Load]]:
    """What `from_pretrained` finds inside, also where sentence-transformers calls it.

    Sizes that differ are let through, to be refused with their names.
    """
    loads: list[Load] = []
    with _lock:
        original = PreTrainedModel.__dict__["from_pretrained"]

        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            wanted = kwargs.pop("output_loading_info", False)
            kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
            model, found = original.__get__(None, cls)(*args, **kwargs)
            loads.append((model, found))
            return (model, found) if wanted else model

        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        try:
            yield loads
        finally:
            PreTrainedModel.from_pretrained = original


def _refuse_misfits(
    folder: Path, model: Any, report: JsonObject, fresh_head: bool, unread: Sequence[Exempt]
) -> None:
    is_encoder = model.base_model is model
    absent = (*ABSENT, *(ABSENT_IN_ENCODERS if is_encoder else ()))
    missing = [name for name in sorted(report["missing_keys"]) if not _matches(name, absent)]
    if fresh_head:
        missing = _without_fresh_head(model, missing)
    unexpected = [
        name
        for name in sorted(report["unexpected_keys"])
        if not _matches(name, (*UNREAD, *unread))
        and not _matches(f"{model.base_model_prefix}.{name}", UNREAD)
        and _is_used(model, name, fresh_head)
    ]
    shapes = sorted(report["mismatched_keys"])
    reasons = [
        f"{_listed(missing, 'is', 'are')} missing" if missing else "",
        f"{_listed(unexpected, 'is', 'are')} not of this network" if unexpected else "",
        f"{_listed([_shapes(*each) for each in shapes], 'has', 'have')} another shape"
        if shapes
        else "",
    ]
    if any(reasons):
        kind = hint(folder, model, missing, sorted(report["unexpected_keys"]), bool(shapes))
        raise ModelError(f"its weights do not fit: {'; '.join(filter(None, reasons))}. {kind}")


def _without_fresh_head(model: Any, missing: Sequence[str]) -> list[str]:
    """The missing names without those of a head's layers that are missing whole.

    Encoders are published with a part of a head, as ModernBERT's, and with a pooler or without.
    """
    prefix = f"{model.base_model_prefix}."
    here = {name for name, _ in model.named_parameters() if not name.startswith(prefix)}
    there = {name.partition(".")[0] for name in here - set(missing)}
    fresh = {name for name in here if name.partition(".")[0] not in there}
    return [
        name
        for name in missing
        if name not in fresh and not _matches(name.removeprefix(prefix), ABSENT_IN_ENCODERS)
    ]


def _is_used(model: Any, name: str, fresh_head: bool) -> bool:
    """Whether an unexpected weight would be a part of the network.

    Nothing beside an encoder's parts is, where it has no head or gets a fresh one.
    """
    if model.base_model is not model and not fresh_head:
        return True
    parts = {part for part, _ in model.base_model.named_children()}
    inner = name.removeprefix(f"{model.base_model_prefix}.")
    return inner.partition(".")[0] in parts


def _matches(name: str, exempt: Sequence[Exempt]) -> bool:
    return any(re.search(each.names, name) for each in exempt)


def _shapes(name: str, stored: Sequence[int], wanted: Sequence[int]) -> str:
    return f"{name} ({list(stored)} in the file, {list(wanted)} by config.json)"


def _listed(names: Sequence[str], one: str, many: str) -> str:
    """The first names, how many there are, and the verb."""
    if len(names) == 1:
        return f"{names[0]} {one}"
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} ({len(names):,} in all) {many}"


def _refuse_adapter(folder: Path) -> None:
    if found := [each for each in _folders(folder) if (each / _ADAPTER).is_file()]:
        raise ModelError(
            f"{found[0] / _ADAPTER} says that these are adapters (LoRA) over another model's "
            "weights: merge them into that model (merge_and_unload of peft) and save the whole"
        )


def _refuse_no_floats(folder: Path) -> None:
    """Quantised weights without the settings that say how are taken for plain numbers."""
    files = [file for each in _folders(folder) for file in sorted(each.glob("*.safetensors"))]
    for file in files:
        if not _LOADED.match(file.name) or _is_quantised(file.parent):
            continue
        with safe_open(file, framework="pt") as stored:
            odd = [
                f"{name} ({kind})"
                for name in stored.keys()  # noqa: SIM118
                if name.endswith((".weight", ".bias"))
                and (kind := stored.get_slice(name).get_dtype()) not in _FLOATS
            ]
        if odd:
            raise ModelError(
                f"{_listed(odd, 'is', 'are')} stored as no floating-point number: quantised "
                "weights, and config.json has no quantization_config. Take the model unquantised"
            )


def _refuse_two_values(folder: Path) -> None:
    """A name in two shards with different weights: the library takes the last."""
    for part in _folders(folder):
        index = json_file(part / "model.safetensors.index.json").get("weight_map")
        if (part / "model.safetensors").is_file() or not isinstance(index, dict):
            continue
        seen: dict[str, Path] = {}
        for file in (part / name for name in sorted(set(map(str, index.values())))):
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118
                    if name not in seen:
                        seen[name] = file
                        continue
                    with safe_open(seen[name], framework="pt") as other:
                        same = _is_same(other.get_tensor(name), stored.get_tensor(name))
                    if not same:
                        raise ModelError(
                            f"{name} stands in {seen[name].name} and in {file.name}, with other "
                            "values: the shards are of two models, or two versions of one; fetch "
                            "all files again"
                        )


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal; NaN is NaN, so that damage is told as what it is."""
    if one.shape != other.shape:
        return False
    return bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))


def _refuse_other_widths(folder: Path, model: Any) -> None:
    """A projection is built as wide as its file is, whatever stands before it."""
    width = None
    for number, module in model.named_children():
        taken = getattr(module, "in_features", None)
        if width is not None and taken is not None and taken != width:
            raise ModelError(
                f"{folder}: linear.weight of {number}_{type(module).__name__} has another shape: "
                f"it takes vectors of {taken} numbers, and gets {width}. Its file is "
                "another model's: fetch all files again"
            )
        known = getattr(module, "get_embedding_dimension", None)
        width = known() if callable(known) else width


def _folders(folder: Path) -> list[Path]:
    """The folder and those of its modules, as modules.json lists them."""
    modules = folder / "modules.json"
    listed = json.loads(modules.read_text("utf-8")) if modules.is_file() else []
    return [folder, *(folder / each["path"] for each in listed if each.get("path"))]


def _is_quantised(folder: Path) -> bool:
    return "quantization_config" in json_file(folder / "config.json")


def _has_transformer(module: Any) -> bool:
    return any(isinstance(part, PreTrainedModel) for part in module.modules())


def _tensors(folder: Path, model: Any) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """Stored tensors of the shapes that the model's own modules have, by shape."""
    wanted = {
        tuple(weight.shape)
        for module in model.children()
        if not _has_transformer(module)
        for weight in module.parameters()
    }
    found: dict[tuple[int, ...], list[torch.Tensor]] = {}
    files = [file for each in _folders(folder) for file in sorted(each.glob("*.safetensors"))]
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                shape = tuple(stored.get_slice(name).get_shape())
                if shape in wanted:
                    found.setdefault(shape, []).append(stored.get_tensor(name))
    return found
