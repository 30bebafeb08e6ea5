"""Second stage: models that read query and document together. One file per family."""

import importlib
from dataclasses import dataclass
from typing import Any

from rerank_batch.errors import ModelError
from rerank_batch.models import ModelName, model_folder
from rerank_batch.rerankers.base import PairScorer, ScorerOptions, ServiceScorer
from rerank_batch.scoring.modes import Choice


@dataclass(frozen=True)
class Family:
    """``scorer`` is ``module:class``, imported when it is needed: the driver loads no model.

    Of a ``service`` the location names a model there, of any other family a folder of weights.
    """

    scorer: str
    service: bool = False


FAMILIES: dict[str, Family] = {
    "cross-encoder": Family("rerank_batch.rerankers.cross_encoder:CrossEncoderScorer"),
    "late-interaction": Family("rerank_batch.rerankers.late_interaction:LateInteractionScorer"),
    "qwen3-reranker": Family("rerank_batch.rerankers.qwen3_reranker:Qwen3RerankerScorer"),
    "mxbai-v2": Family("rerank_batch.rerankers.mxbai_v2:MxbaiV2Scorer"),
    "bge-gemma": Family("rerank_batch.rerankers.bge_gemma:BgeGemmaScorer"),
    "bge-layerwise": Family("rerank_batch.rerankers.bge_layerwise:BgeLayerwiseScorer"),
}


def load_scorer(name: ModelName, options: ScorerOptions) -> PairScorer:
    """The scorer of a family with weights, in memory.

    Raises:
        ModelError: unknown family, or files the family cannot load.
    """
    scorer: PairScorer = _scorer_class(name)(model_folder(name.location), options)
    return scorer


def open_service(name: ModelName, options: ScorerOptions) -> ServiceScorer:
    """The scorer of a family that is a service.

    Raises:
        ConfigError: the environment lacks its key or its address.
        ServiceError: the address is one that is never called.
    """
    scorer: ServiceScorer = _scorer_class(name)(name.location, options)
    return scorer


def choose_mode(name: ModelName, options: ScorerOptions) -> Choice:
    """Measure in which mode the model runs fastest here; errors as of `load_scorer`."""
    choice: Choice = _scorer_class(name).choose(model_folder(name.location), options)
    return choice


def family_of(name: ModelName) -> Family:
    """What the registry says of a model's family.

    Raises:
        ModelError: there is no such family.
    """
    if name.family not in FAMILIES:
        raise ModelError(f"unknown model family {name.family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name.family]


def _scorer_class(name: ModelName) -> Any:
    module, _, attribute = family_of(name).scorer.partition(":")
    return getattr(importlib.import_module(module), attribute)
