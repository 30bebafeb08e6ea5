"""What kind of files weights look like that do not fit, and what to do. Decides nothing."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rerank_batch.models.settings import json_file
from rerank_batch.schema import JsonObject

_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "model.", "transformer.", "encoder.")
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|block)\.(\d+)\.")


def hint(
    folder: Path, model: Any, missing: Sequence[str], unexpected: Sequence[str], shapes: bool
) -> str:
    """One sentence or two: what the names look like, and what to give instead."""
    settings = json_file(folder / "config.json")
    if wrapper := _wrapper(missing, unexpected):
        return (
            f"The names in the file begin with {wrapper!r}, as a training wrapper or another "
            "program saves them: save the model itself with save_pretrained, without that prefix"
        )
    if any("lora_" in name or ".base_layer." in name for name in unexpected):
        return "They look like adapters (LoRA) that were not merged: merge_and_unload, then save"
    if any("Wqkv" in name or "mixer." in name for name in unexpected):
        return (
            "They look like the names of flash-attention's own code, which is never run: take a "
            "version that was converted for transformers"
        )
    if _is_alibi(settings, unexpected):
        return (
            "They look like JinaBERT (ALiBi positions, gated layers) under another model_type; "
            "its own code is never run: take a model that transformers knows"
        )
    if headless := _headless(folder, model, missing, unexpected, settings):
        return headless
    if not missing and not shapes and _highest(unexpected) > _highest(model.state_dict()):
        return "The file has more layers than config.json says: it belongs to another size"
    if not unexpected and not shapes:
        return "The file is not whole, or config.json asks for more than it has: fetch both again"
    if settings.get("auto_map"):
        return (
            "config.json names code of the model's own (auto_map), which is never run: take a "
            "model that transformers knows"
        )
    if shapes and not missing and not unexpected:
        return "config.json or the weights belong to another size of model: fetch both again"
    return (
        "The weights belong to another kind of network than config.json says, or were renamed or "
        "damaged: fetch the model again, config.json and weights together"
    )


def _wrapper(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The prefix under which the file has the missing names; empty where there is none."""
    names = set(unexpected)
    for wrapper in _WRAPPERS:
        if missing and all(wrapper + name in names for name in missing):
            return wrapper
    for wrapper in _WRAPPERS[:3]:
        if unexpected and all(name.startswith(wrapper) for name in unexpected):
            return wrapper
    return ""


def _is_alibi(settings: JsonObject, unexpected: Iterable[str]) -> bool:
    return (
        settings.get("position_embedding_type") == "alibi"
        or "glu" in str(settings.get("feed_forward_type", ""))
        or any(re.search(r"gated_layers|up_gated_layer|\.glumlp\.", name) for name in unexpected)
    )


def _headless(
    folder: Path,
    model: Any,
    missing: Sequence[str],
    unexpected: Sequence[str],
    settings: JsonObject,
) -> str:
    """What to say where all that is missing is the head above the encoder; else empty."""
    prefix = f"{model.base_model_prefix}."
    below = [
        name
        for name in missing
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
    ]
    if not missing or below or model.base_model is model:
        return ""
    if "lm_head.weight" in unexpected and prefix == "model.":
        return (
            "It looks like a language model, which has no head that scores pairs: take a reranker "
            "of a family that is one (qwen3-reranker, mxbai-v2, bge-gemma)"
        )
    architecture = str((settings.get("architectures") or ["of no name"])[0])
    modules = folder / "modules.json"
    if modules.is_file() and "Pooling" in modules.read_text("utf-8", "replace"):
        return (
            "It looks like a sentence-transformers bi-encoder, which has no head that scores "
            f"pairs: use it as late-interaction:{folder} or as index.encoder"
        )
    return (
        f"It looks like an encoder without a head that scores pairs ({architecture}): take a "
        "fine-tuned cross-encoder, or train one from it with: rerank-batch finetune"
    )


def _highest(names: Iterable[str]) -> int:
    """The highest number of a layer in the names; -1 where there is none."""
    return max((int(number) for name in names for number in _LAYER.findall(name)), default=-1)
