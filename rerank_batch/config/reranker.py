"""The section ``reranker``: one model or a cascade of them, and when to go without."""

import re

from pydantic import Field, field_validator, model_validator

from rerank_batch.config.base import ModelText, Section
from rerank_batch.config.scorer import ScorerConfig, ScorerSettings


class GateConfig(Section):
    """When retrieval is sure enough to go without the reranker."""

    signal: str = "margin"
    """What is read from the retrieval scores: top1 the best of them, margin its distance to the
    second, margin@k to the k-th, entropy that of their softmax."""
    threshold: float | None = None
    """A query is skipped where the signal is at least this (entropy: at most)."""
    max_loss: float | None = Field(default=None, gt=0, lt=1)
    """The loss under which `evaluate --calibrate-gate` keeps the threshold that it finds."""

    @field_validator("signal")
    @classmethod
    def _signal_is_known(cls, signal: str) -> str:
        if not _SIGNAL.match(signal):
            raise ValueError(f"{signal!r} is no signal: margin, margin@k (k from 2), top1, entropy")
        return signal


_SIGNAL = re.compile(r"^(margin|top1|entropy|margin@([2-9]|[1-9][0-9]{1,3}))\Z")


class RerankerConfig(ScorerSettings):
    """What reranks, and how many results are kept.

    Either one ``model`` and its settings here, or a cascade of ``stages`` with their own.
    """

    model: ModelText | None = None
    """What reranks, `family:location`."""
    top_k: int = Field(default=10, ge=1)
    """How many results a query keeps."""
    stages: tuple[ScorerConfig, ...] = ()
    """The models of a cascade; each reads the best depth of what the one before it made."""
    gate: GateConfig | None = None
    """When the reranker is skipped."""

    @model_validator(mode="after")
    def _one_model_or_stages(self) -> "RerankerConfig":
        if (self.model is None) == (not self.stages):
            raise ValueError("give either model, or stages with a model each")
        misplaced = sorted(set(ScorerSettings.model_fields) & self.model_fields_set)
        if self.stages and misplaced:
            raise ValueError(
                f"{', '.join(misplaced)}: with stages, such settings belong to each stage"
            )
        depths = [stage.depth for stage in self.cascade if stage.depth is not None]
        if depths != sorted(depths, reverse=True):
            raise ValueError(f"depths must not grow from stage to stage: {depths}")
        if depths and self.top_k > depths[-1]:
            raise ValueError(
                f"top_k ({self.top_k}) is larger than the last depth ({depths[-1]}): results are "
                "those that the last model read"
            )
        return self

    @property
    def cascade(self) -> tuple[ScorerConfig, ...]:
        """The models in the order in which they read; one, or several stages."""
        if self.stages:
            return self.stages
        shared = {name: getattr(self, name) for name in ScorerSettings.model_fields}
        return (ScorerConfig(model=self.model or "", **shared),)
