"""The families of rerankers: what each is, and opening a model of one."""

import importlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_batch.config import LlmMethod
from rerank_batch.errors import ModelError
from rerank_batch.models.fingerprint import ModelPin, pin_model, pinned_model
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import prompts
from rerank_batch.rerankers.base import PairScorer, ScorerOptions, ServiceScorer
from rerank_batch.scoring.modes import Choice


@dataclass(frozen=True)
class Family:
    """``scorer`` is ``module:class``, imported when it is needed: the driver loads no model.

    Of a ``service`` the location names a model there, of any other family a folder of weights.
    A ``prompted`` family ranks as ``method`` says, by a prompt that is a part of this project.
    """

    scorer: str
    service: bool = False
    prompted: bool = False


FAMILIES: dict[str, Family] = {
    "cross-encoder": Family("rerank_batch.rerankers.cross_encoder:CrossEncoderScorer"),
    "late-interaction": Family("rerank_batch.rerankers.late_interaction:LateInteractionScorer"),
    "qwen3-reranker": Family("rerank_batch.rerankers.qwen3_reranker:Qwen3RerankerScorer"),
    "mxbai-v2": Family("rerank_batch.rerankers.mxbai_v2:MxbaiV2Scorer"),
    "bge-gemma": Family("rerank_batch.rerankers.bge_gemma:BgeGemmaScorer"),
    "bge-layerwise": Family("rerank_batch.rerankers.bge_layerwise:BgeLayerwiseScorer"),
    "cohere": Family("rerank_batch.rerankers.cohere:CohereScorer", service=True),
    "voyage": Family("rerank_batch.rerankers.voyage:VoyageScorer", service=True),
    "jina": Family("rerank_batch.rerankers.jina:JinaScorer", service=True),
    "tei": Family("rerank_batch.rerankers.tei:TeiScorer", service=True),
    "vllm": Family("rerank_batch.rerankers.vllm:VllmScorer", service=True),
    "infinity": Family("rerank_batch.rerankers.infinity:InfinityScorer", service=True),
    "llm": Family("rerank_batch.rerankers.llm:LlmScorer", service=True, prompted=True),
}


def load_scorer(name: ModelName, options: ScorerOptions, pin: ModelPin | None = None) -> PairScorer:
    """The scorer of a family with weights, in memory.

    A worker of a run gives the run's ``pin``; without one the model is taken as it is now.

    Raises:
        ModelError: unknown family, or files that the family cannot load or use.
        ModelChanged: the files are not those of the pin.
    """
    kind = _scorer_class(name)
    with pinned_model(pin or pin_model(name.location)[0]) as folder, _using(folder):
        scorer: PairScorer = kind(folder, options)
    return scorer


def open_service(name: ModelName, options: ScorerOptions) -> ServiceScorer:
    """The scorer of a family that is a service.

    Raises:
        ConfigError: the environment lacks its key or its address.
        ServiceError: the address is one that is never called.
    """
    scorer: ServiceScorer = _scorer_class(name)(name.location, options)
    return scorer


def choose_mode(name: ModelName, options: ScorerOptions, pin: ModelPin | None = None) -> Choice:
    """Measure in which mode the model runs fastest here; ``pin`` and errors as of `load_scorer`."""
    kind = _scorer_class(name)
    with pinned_model(pin or pin_model(name.location)[0]) as folder, _using(folder):
        choice: Choice = kind.choose(folder, options)
    return choice


def family_of(name: ModelName) -> Family:
    """What the registry says of a model's family.

    Raises:
        ModelError: there is no such family.
    """
    if name.family not in FAMILIES:
        raise ModelError(f"unknown model family {name.family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name.family]


def is_listwise(name: ModelName, method: LlmMethod) -> bool:
    """Whether a score depends on the whole list, so that it belongs to no pair alone.

    Jina's third reranker lets documents attend to those before them, whoever serves it
    (https://huggingface.co/jinaai/jina-reranker-v3).

    Raises:
        ModelError: there is no such family.
    """
    family = family_of(name)
    if family.prompted:
        return method == "listwise"
    return family.service and "jina-reranker-v3" in name.location


def prompt_fingerprint(name: ModelName, method: LlmMethod) -> str | None:
    """sha256 of the prompt by which the model ranks; None where it needs none.

    Raises:
        ModelError: there is no such family.
    """
    return prompts.fingerprint(method) if family_of(name).prompted else None


def _using(folder: Path) -> AbstractContextManager[None]:
    """See `usable.using`; imported when a model is, as the driver loads none."""
    from rerank_batch.scoring.usable import using

    return using(folder)


def _scorer_class(name: ModelName) -> Any:
    module, _, attribute = family_of(name).scorer.partition(":")
    return getattr(importlib.import_module(module), attribute)
