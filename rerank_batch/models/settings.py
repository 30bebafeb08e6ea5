"""Settings of a model: its JSON files, and what its sizes cost in computation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_batch.errors import ModelError
from rerank_batch.schema import JsonObject


def model_settings(folder: Path) -> JsonObject:
    """The transformer's config.json, for sizes; empty where the model has none at its top."""
    return json_file(folder / "config.json")


def json_file(file: Path) -> JsonObject:
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
