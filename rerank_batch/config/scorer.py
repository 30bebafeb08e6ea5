"""What can be set for one model of ``reranker``, and which family reads what."""

from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rerank_batch.config.base import Explained, ModelText, Section
from rerank_batch.config.service import ServiceConfig

Lossy = Literal["bf16", "int8"]

Format = Literal["fp32"] | Lossy

Precision = Annotated[Literal["auto"] | Format, Explained("'auto', fp32, bf16 or int8")]

Truncation = Literal["longest_first", "only_second"]

LlmMethod = Literal["yes-no", "grade", "listwise"]


class ScorerSettings(Section):
    """How a model scores, and how much it reads; `SETTINGS_OF` has who reads what."""

    depth: int | None = Field(default=None, ge=1)
    """How many candidates it reads, the best so far first; by default all."""
    max_length: int | None = Field(default=None, ge=8)
    """How many tokens of a pair it reads; by default what the model says."""
    precision: Precision = "auto"
    """The numbers to compute in: bf16 and int8 are used where the machine has them and a short
    measurement says that they pay, else fp32. auto is the fastest of fp32 and those of allow. It
    is measured once for a model and a root, and kept."""
    allow: tuple[Lossy, ...] = ()
    """The numbers that auto may choose beside fp32."""
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    """What runs the model; auto measures which is faster."""
    truncation: Truncation = "longest_first"
    """What loses tokens where a pair is longer than max_length: the longer of the two, or the
    document alone."""
    batch_tokens: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=64)],
        Explained("'auto' or a whole number of at least 64"),
    ] = "auto"
    """How many tokens go through the model at a time, padding included; auto is what suits the
    device."""
    layer: int | None = Field(default=None, ge=1)
    """The last layer that is computed; by default the model's last."""
    instruction: str | None = None
    """The task that the prompt states; for an LLM the criterion."""
    max_chars: int | None = Field(default=None, ge=1)
    """How many characters of query and document a service gets; by default 4,000 for an LLM."""
    method: LlmMethod = "yes-no"
    """How an LLM ranks: it judges pair by pair (yes-no, grade), or puts a list in order."""
    window: int = Field(default=20, ge=2)
    """How many documents the listwise method shows at a time."""
    step: int = Field(default=10, ge=1)
    """By how many documents that window moves."""
    service: ServiceConfig = ServiceConfig()
    """How the service is called."""

    @model_validator(mode="after")
    def _windows_overlap(self) -> "ScorerSettings":
        if self.step >= self.window:
            raise ValueError(
                f"step ({self.step}) must be smaller than window ({self.window}): a document moves "
                "up through what two windows share"
            )
        return self


_WEIGHTS = ("max_length", "precision", "allow", "runtime", "batch_tokens")
_CALLS = tuple(f"service.{name}" for name in ServiceConfig.model_fields)
_HTTP = ("max_chars", *_CALLS)
_CHAT = tuple(name for name in _HTTP if name != "service.documents_per_call")

SETTINGS_OF: dict[str, tuple[str, ...]] = {
    "cross-encoder": (*_WEIGHTS, "truncation"),
    "late-interaction": _WEIGHTS,
    "qwen3-reranker": (*_WEIGHTS, "instruction"),
    "mxbai-v2": (*_WEIGHTS, "instruction"),
    "bge-gemma": _WEIGHTS,
    "bge-layerwise": (*_WEIGHTS, "layer"),
    "cohere": _HTTP,
    "voyage": _HTTP,
    "jina": _HTTP,
    "tei": _HTTP,
    "vllm": _HTTP,
    "infinity": _HTTP,
    "llm": (*_CHAT, "instruction", "method", "window", "step"),
}
"""The settings that each family reads, beside ``depth``, which all have."""


def families_with(setting: str) -> list[str]:
    """The families that read a setting, a dotted key of `ScorerSettings`."""
    return [family for family, settings in SETTINGS_OF.items() if setting in settings]


class ScorerConfig(ScorerSettings):
    """One model of a cascade."""

    model: ModelText
    """What scores, `family:location`."""

    @model_validator(mode="after")
    def _family_reads_what_is_set(self) -> "ScorerConfig":
        family = self.model.partition(":")[0]
        if family not in SETTINGS_OF:
            return self  # refused with the families that there are, where models are looked up
        others = set().union(*SETTINGS_OF.values()).difference(SETTINGS_OF[family])
        usual = ScorerSettings()
        unread = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "words",
                    f"not read by {family}; families that read it: "
                    f"{', '.join(families_with(name))}",
                ),
                loc=tuple(name.split(".")),
                input=None,
            )
            for name in sorted(others)
            if attrgetter(name)(self) != attrgetter(name)(usual)
        ]
        if unread:
            raise ValidationError.from_exception_data(type(self).__name__, unread)
        return self
