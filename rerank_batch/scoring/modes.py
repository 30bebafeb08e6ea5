"""The modes a model can run in, as data: imports no model library, so that the driver may.

Two modes give other last digits. Processes that share a run or a score cache share the mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rerank_batch.config import Format, Lossy, Precision
from rerank_batch.schema import JsonObject

RuntimeName = Literal["openvino", "torch"]


@dataclass(frozen=True)
class Mode:
    """What runs a network, in which numbers."""

    runtime: RuntimeName
    format: Format

    def __str__(self) -> str:
        return f"{self.runtime} {self.format}"


@dataclass(frozen=True)
class Choice:
    """The mode that was chosen, and the tokens per second of every one that was tried.

    ``fallback`` is why the model runs by sentence-transformers; empty where it runs by our engine.
    """

    mode: Mode
    tokens_per_second: Mapping[str, float]
    fallback: str = ""

    KEYS: ClassVar = ("runtime", "format", "tokens_per_second")

    def to_dict(self) -> JsonObject:
        """For JSON, with those keys; see `from_dict`."""
        return {
            "runtime": self.mode.runtime,
            "format": self.mode.format,
            "tokens_per_second": dict(self.tokens_per_second),
            **({"fallback": self.fallback} if self.fallback else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Choice":
        """What `to_dict` made."""
        mode = Mode(value["runtime"], value["format"])
        return cls(mode, value["tokens_per_second"], value.get("fallback", ""))


@dataclass(frozen=True)
class Graphs:
    """Where a node keeps exported networks, and whose they are: the model's fingerprint."""

    folder: Path
    fingerprint: str


def modes_for(
    precision: Precision, allow: Sequence[Lossy], runtime: str, device: str
) -> list[Mode]:
    """The modes that a precision lets choose from; float32 is always among them.

    ``auto`` takes no format that loses digits unless ``allow`` names it. ``runtime`` is a
    `RuntimeName`, or auto.
    """
    formats: list[Format] = ["fp32"]
    if precision == "auto":
        formats += allow
    elif precision != "fp32":
        formats.append(precision)
    runtimes: list[RuntimeName] = ["openvino", "torch"] if device == "cpu" else ["torch"]
    return [
        Mode(each, format) for format in formats for each in runtimes if runtime in ("auto", each)
    ]
