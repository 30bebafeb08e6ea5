"""The rerankers of a configuration: found, checked and fingerprinted before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rerank_batch.config import (
    Config,
    ScorerConfig,
    StorageConfig,
    digest,
)
from rerank_batch.errors import ConfigError, ModelError
from rerank_batch.models.fingerprint import ModelPin, pin_model
from rerank_batch.models.location import ModelName, parse_model
from rerank_batch.models.settings import model_settings
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.registry import FAMILIES, family_of, prompt_fingerprint
from rerank_batch.schema import JsonObject
from rerank_batch.scoring.graphs import graphs
from rerank_batch.scoring.stored import stored_prompts
from rerank_batch.services.address import address_of
from rerank_batch.services.spending import check_price


@dataclass(frozen=True)
class ScorerInput:
    """One model of the cascade, found and checked: its number there, and what it is made of.

    ``made_of`` is the fingerprint of its weights, or of what is known of a service: its name and
    its prompt. ``sizes`` is the config.json of its weights, empty for a service, which has no
    ``pin``. ``prompts`` are those that are stored with the weights.
    """

    number: int
    model: ModelName
    config: ScorerConfig
    made_of: str
    sizes: JsonObject
    pin: ModelPin | None = None
    prompts: dict[str, str] = field(default_factory=dict)

    @property
    def is_service(self) -> bool:
        """Whether it is called over HTTP."""
        return family_of(self.model).service

    def weights(self) -> ModelPin:
        """The pin of a model with weights."""
        if self.pin is None:
            raise ModelError(f"{self.model} is a service, which has no weights")
        return self.pin


def scorer_names(config: Config) -> list[ModelName]:
    """The models of the cascade, parsed.

    Raises:
        ModelError: a family that is not known, with the key where it stands.
    """
    if config.reranker is None:
        return []
    keys = ["reranker.model"]
    if config.reranker.stages:
        keys = [f"reranker.stages.{n}.model" for n in range(len(config.reranker.stages))]
    return [
        parse_model(scorer.model, tuple(FAMILIES), key)
        for scorer, key in zip(config.reranker.cascade, keys, strict=True)
    ]


def scorer_input(number: int, model: ModelName, settings: ScorerConfig) -> ScorerInput:
    """A model of the cascade, found and checked.

    Raises:
        ModelError: it is not there.
        ServiceError: a service whose address or key is missing.
    """
    if family_of(model).service:
        address_of(model.family)  # so that a missing key is told before anything is started
        made_of = digest([str(model), prompt_fingerprint(model, settings.method)])
        return ScorerInput(number, model, settings, made_of, {})
    pin, folder = pin_model(model.location)
    sizes, prompts = model_settings(folder), stored_prompts(folder)
    return ScorerInput(number, model, settings, pin.fingerprint, sizes, pin, prompts)


def prompts_of(scorers: Sequence[ScorerInput]) -> JsonObject:
    """The prompts stored with the weights, where there are any, as an ingredient of a run.

    Versions before this one scored without them: a run that one of those began does not go on.
    """
    prompts = [scorer.prompts for scorer in scorers]
    return {"prompts": prompts} if any(prompts) else {}


def check_gate(config: Config) -> None:
    """A gate that was given a loss has to be told its threshold before it can be used.

    Raises:
        ConfigError: how to get one.
    """
    gate = config.reranker.gate if config.reranker else None
    if gate is not None and gate.threshold is None:
        raise ConfigError(
            "reranker.gate has no threshold: learn one on judged queries with "
            "`rerank-batch evaluate CONFIG --calibrate-gate`, which prints what to write there"
        )


def check_prices(config: Config, scorers: Sequence[ScorerInput]) -> None:
    """A cap means nothing where a price is missing.

    Raises:
        ConfigError: which price that is.
    """
    for scorer in scorers:
        if scorer.is_service:
            check_price(config.cost, str(scorer.model))


def scorer_options(storage: StorageConfig, scorer: ScorerInput, sharers: int = 1) -> ScorerOptions:
    """What the configuration says of how one model of the cascade runs."""
    settings = scorer.config
    return ScorerOptions(
        max_length=settings.max_length,
        precision=settings.precision,
        allow=settings.allow,
        runtime=settings.runtime,
        truncation=settings.truncation,
        batch_tokens=None if settings.batch_tokens == "auto" else settings.batch_tokens,
        graphs=graphs(storage, scorer.made_of),
        layer=settings.layer,
        instruction=settings.instruction,
        max_chars=settings.max_chars,
        method=settings.method,
        window=settings.window,
        step=settings.step,
        service=settings.service,
        sharers=sharers,
    )
