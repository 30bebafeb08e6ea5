"""The section ``evaluation``."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rerank_batch.config.base import Location, Section
from rerank_batch.config.reranker import RerankerConfig


class SystemConfig(Section):
    """A system that `evaluate` compares with others.

    Either one that is computed: the configuration with these settings of ``index`` and
    ``retrieval`` in place of its own, and with this ``reranker`` as a whole. Or lists that
    exist: of an earlier ``run``, or a ``trec`` run file.
    """

    index: dict[str, Any] = Field(default={})
    """Settings of index in place of the configuration's."""
    retrieval: dict[str, Any] = Field(default={})
    """Settings of retrieval in place of the configuration's."""
    reranker: RerankerConfig | None = None
    """A reranker in place of the configuration's, as a whole; null is none."""
    run: str | None = None
    """The id of an earlier run."""
    system: str | None = None
    """Which lists of that run: of a comparison the name of one of its systems, else retrieval or
    reranked; by default reranked."""
    trec: Location | None = None
    """A TREC run file."""

    @model_validator(mode="after")
    def _one_source(self) -> "SystemConfig":
        computed = {"index", "retrieval", "reranker"} & self.model_fields_set
        sources = [bool(computed), self.run is not None, self.trec is not None]
        if sum(sources) > 1:
            raise ValueError(
                "give settings of a system that is computed (index, retrieval, reranker), or run, "
                "or trec"
            )
        if self.system is not None and self.run is None:
            raise ValueError("system says which of a run's lists to take: give run with it")
        return self

    @property
    def is_computed(self) -> bool:
        """Whether it is computed now, and not lists that are there."""
        return self.run is None and self.trec is None


class EvaluationConfig(Section):
    """What is measured against what, and the systems that are compared."""

    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@5", "R@50")
    """Measures by their ir-measures names."""
    labels: Literal["judgements", "clicks"] = "judgements"
    """What lists are measured against: the judgements of qrels, or those made of clicks."""
    systems: dict[str, SystemConfig] = Field(default={})
    """Systems by name; the first is what the others are compared with. Without any the reranked
    lists are compared with those of retrieval."""
    segments: tuple[str, ...] = ()
    """Columns of a Parquet log, partition columns too, by whose values the measures are reported as
    well; they change no results."""

    @field_validator("systems")
    @classmethod
    def _systems_have_plain_names(cls, systems: dict[str, SystemConfig]) -> dict[str, SystemConfig]:
        for name in systems:
            if not _SYSTEM.match(name):
                raise ValueError(
                    f"{name!r} is no name of a system: letters, digits, blanks and any of _.,:@+- "
                    "in 40 characters, the first a letter or a digit"
                )
        if len(systems) == 1:
            raise ValueError("one system has none to be compared with: name at least two")
        return systems

    @field_validator("segments")
    @classmethod
    def _segments_are_different(cls, segments: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in segments if segments.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice")
        return segments


_SYSTEM = re.compile(r"^[A-Za-z0-9][\w .,:@+-]{0,39}\Z")
