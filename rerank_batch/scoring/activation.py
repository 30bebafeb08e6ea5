"""What a cross-encoder's files say is applied to a logit, and why it may be left out.

Scores are raw logits. That is the order of `CrossEncoder.predict` as long as the function on top of
them never falls.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rerank_batch.errors import ModelError
from rerank_batch.models.settings import json_file

_ST_CONFIG = "config_sentence_transformers.json"
_LOGITS = torch.linspace(-20, 20, 801, dtype=torch.float64)[:, None]
_ROUNDING = 1e-9


def check_activation(folder: Path, activation: Any) -> None:
    """Refuse a stored function that gives another order than the logits.

    ``activation`` is what sentence-transformers made of the files; a name outside of torch it
    leaves out with a line in its log.

    Raises:
        ModelError: the message names the function and the file.
    """
    for file, name in _named(folder):
        if not name.startswith("torch."):
            raise ModelError(
                f"{folder / file} names the activation {name!r}, which is code that is never run "
                "here, and scores are the logits before it. Take activation_fn out of the file if "
                "it does not change the order"
            )
    if not _keeps_order(activation):
        named = next((f"{folder / file} names" for file, _ in _named(folder)), f"{folder} has")
        raise ModelError(
            f"{named} the activation {type(activation).__name__}, which gives another order than "
            "the logits. Scores are the logits, so this model would be ranked wrong"
        )


def _named(folder: Path) -> Iterator[tuple[str, str]]:
    """Files and the activations that they name, first what sentence-transformers looks at first."""
    config = json_file(folder / "config.json")
    nested = config.get("sentence_transformers")
    settings = (
        (_ST_CONFIG, json_file(folder / _ST_CONFIG).get("activation_fn")),
        ("config.json", nested.get("activation_fn") if isinstance(nested, dict) else None),
        ("config.json", config.get("sbert_ce_default_activation_function")),
    )
    yield from ((file, str(name)) for file, name in settings if name)


def _keeps_order(activation: Any) -> bool:
    """Whether the function never falls over a range of logits, each a row as in `predict`."""
    if activation is None:
        return True
    try:
        with warnings.catch_warnings(action="ignore"):
            values = torch.as_tensor(activation(_LOGITS)).detach().reshape(-1)
    except Exception:  # a function of another shape of input
        return False
    if values.shape != (len(_LOGITS),) or not bool(torch.isfinite(values).all()):
        return False
    return bool((values.diff() >= -_ROUNDING).all()) and bool(values[-1] > values[0])
