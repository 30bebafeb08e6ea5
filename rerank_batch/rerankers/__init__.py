"""Second stage: models that read query and document together. One file per family."""

import importlib
from pathlib import Path
from typing import Any

from rerank_batch.errors import ModelError
from rerank_batch.models import ModelName
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.scoring.modes import Choice

FAMILIES: dict[str, str] = {
    "cross-encoder": "rerank_batch.rerankers.cross_encoder:CrossEncoderScorer",
    "late-interaction": "rerank_batch.rerankers.late_interaction:LateInteractionScorer",
}
"""Family -> the class that scores it, imported when it is needed: the driver loads no model."""


def load_scorer(name: ModelName, folder: Path, options: ScorerOptions) -> PairScorer:
    """The scorer of a parsed model name, its weights in memory.

    Raises:
        ModelError: unknown family, or files the family cannot load.
    """
    scorer: PairScorer = _family(name)(folder, options)
    return scorer


def choose_mode(name: ModelName, folder: Path, options: ScorerOptions) -> Choice:
    """Measure in which mode the model runs fastest here; errors as of `load_scorer`."""
    choice: Choice = _family(name).choose(folder, options)
    return choice


def _family(name: ModelName) -> Any:
    if name.family not in FAMILIES:
        raise ModelError(f"unknown model family {name.family!r}; there are {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[name.family].partition(":")
    return getattr(importlib.import_module(module), attribute)
