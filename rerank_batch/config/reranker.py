"""The section ``reranker``."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rerank_batch.config.base import ModelText, Section
from rerank_batch.config.service import ServiceConfig

Lossy = Literal["bf16", "int8"]

Format = Literal["fp32"] | Lossy

Precision = Literal["auto"] | Format

Truncation = Literal["longest_first", "only_second"]

LlmMethod = Literal["yes-no", "grade", "listwise"]


class ScorerSettings(Section):
    """How a model scores, and how much it reads.

    ``depth`` is how many candidates it reads, the best so far first; by default all there are.
    ``precision`` names the numbers to compute in: bf16 and int8 are used where the machine has them
    and a short measurement says that they pay, else fp32. auto is the fastest of fp32 and those
    that ``allow`` names. What is fastest is measured once for a model and a root, and kept.
    ``truncation`` says what loses tokens where a pair is longer than ``max_length``: the longer of
    the two, or the document alone. Of the rest each family reads what concerns it: ``layer`` is the
    last one that bge-layerwise computes, ``instruction`` the task that qwen3-reranker and mxbai-v2
    are told or the criterion of an LLM, ``max_chars`` where documents are cut before a service gets
    them (for an LLM by default at 4,000), ``method`` how an LLM ranks, ``window`` and ``step`` the
    sliding window of its listwise method.
    """

    depth: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8)
    precision: Precision = "auto"
    allow: tuple[Lossy, ...] = ()
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    truncation: Truncation = "longest_first"
    batch_tokens: Literal["auto"] | Annotated[int, Field(ge=64)] = "auto"
    layer: int | None = Field(default=None, ge=1)
    instruction: str | None = None
    max_chars: int | None = Field(default=None, ge=1)
    method: LlmMethod = "yes-no"
    window: int = Field(default=20, ge=2)
    step: int = Field(default=10, ge=1)
    service: ServiceConfig = ServiceConfig()

    @model_validator(mode="after")
    def _windows_overlap(self) -> "ScorerSettings":
        if self.step >= self.window:
            raise ValueError(
                f"step ({self.step}) must be smaller than window ({self.window}): a document moves "
                "up through what two windows share"
            )
        return self


class ScorerConfig(ScorerSettings):
    """One model of a cascade."""

    model: ModelText


class GateConfig(Section):
    """When retrieval is sure enough to go without the reranker.

    ``signal`` is read from the retrieval scores: ``top1`` the best of them, ``margin`` its distance
    to the second, ``margin@k`` to the k-th, ``entropy`` that of their softmax. A query is skipped
    where the signal is at least ``threshold`` (entropy: at most). `evaluate --calibrate-gate`
    finds the threshold that keeps the loss under ``max_loss``.
    """

    signal: str = "margin"
    threshold: float | None = None
    max_loss: float | None = Field(default=None, gt=0, lt=1)

    @field_validator("signal")
    @classmethod
    def _signal_is_known(cls, signal: str) -> str:
        if not _SIGNAL.match(signal):
            raise ValueError(f"{signal!r} is no signal: margin, margin@k (k from 2), top1, entropy")
        return signal


_SIGNAL = re.compile(r"^(margin|top1|entropy|margin@([2-9]|[1-9][0-9]{1,3}))\Z")


class RerankerConfig(ScorerSettings):
    """What reranks, and how many results are kept.

    Either one ``model`` and its settings here, or a cascade of ``stages`` with their own: each
    reads the best ``depth`` of what the one before it made.
    """

    model: ModelText | None = None
    top_k: int = Field(default=10, ge=1)
    stages: tuple[ScorerConfig, ...] = ()
    gate: GateConfig | None = None

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
