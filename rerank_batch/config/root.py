"""The whole configuration, and what is checked across its sections.

Knows words and their limits, not files: whether a path exists is checked by whoever reads it.
"""

import re
from typing import Annotated, Any

from pydantic import ValidationError, field_validator, model_validator

from rerank_batch.config.answer_check import AnswerCheckConfig
from rerank_batch.config.base import IN_COLLECTION, Location, Section
from rerank_batch.config.cache import CacheConfig
from rerank_batch.config.clicks import ClicksConfig
from rerank_batch.config.compute import ComputeConfig
from rerank_batch.config.corpus import CorpusConfig
from rerank_batch.config.cost import CostConfig
from rerank_batch.config.evaluation import EvaluationConfig, SystemConfig
from rerank_batch.config.guards import GuardsConfig
from rerank_batch.config.index import IndexConfig
from rerank_batch.config.labels import LabelsConfig
from rerank_batch.config.limits import LimitsConfig
from rerank_batch.config.messages import explain
from rerank_batch.config.notify import NotifyConfig
from rerank_batch.config.outcomes import OutcomesConfig
from rerank_batch.config.qrels import QrelsConfig
from rerank_batch.config.queries import QueriesConfig
from rerank_batch.config.reranker import RerankerConfig
from rerank_batch.config.retrieval import RetrievalConfig
from rerank_batch.config.storage import StorageConfig

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}\Z")

OF_COLLECTION = "collection:"
"""The path of a section that ``collection`` is to fill; see `rerank_batch.data.collection`. No
file has this name by chance, so that a path that was not filled is read by nobody."""


class Config(Section):
    """Everything a job needs to know."""

    root: Location = "./.runs"
    """Where runs, scores and modes are kept: a folder or s3://BUCKET/PREFIX."""
    job: str = "rerank"
    """The name under which latest.json is kept."""
    collection: Location | None = None
    """A folder in the layout of BEIR or of MTEB, or `ir_datasets:ID`, which gives corpus, queries
    and judgements where their own paths are not given."""
    split: str | None = None
    """The split of its judgements, by default test, or the only one there is."""
    corpus: Annotated[CorpusConfig, IN_COLLECTION]
    """The documents."""
    queries: QueriesConfig | None = None
    """The query log."""
    qrels: QrelsConfig | None = None
    """Judgements."""
    clicks: ClicksConfig | None = None
    """A click log."""
    index: IndexConfig
    """The index."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """Where candidates come from."""
    reranker: RerankerConfig | None = None
    """What reranks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured."""
    outcomes: OutcomesConfig | None = None
    """What became of queries after retrieval."""
    answer_check: AnswerCheckConfig | None = None
    """Answers from each system's list."""
    compute: ComputeConfig = ComputeConfig()
    """Actor pools and machine size."""
    storage: StorageConfig = StorageConfig()
    """Where s3:// is."""
    cache: CacheConfig = CacheConfig()
    """The score cache."""
    cost: CostConfig = CostConfig()
    """What things cost."""
    limits: LimitsConfig = LimitsConfig()
    """When a run stops."""
    labels: LabelsConfig = LabelsConfig()
    """Training labels."""
    guards: GuardsConfig = GuardsConfig()
    """What a run must hold."""
    notify: NotifyConfig = NotifyConfig()
    """Who learns how a run ended."""

    @model_validator(mode="before")
    @classmethod
    def _collection_gives_paths(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("collection") is None:
            return raw
        filled = dict(raw)
        for name in ("corpus", "queries", "qrels"):
            section = raw.get(name, {})
            if isinstance(section, dict):
                filled[name] = {"path": OF_COLLECTION, **section}
        return filled

    @field_validator("job")
    @classmethod
    def _job_is_a_plain_name(cls, job: str) -> str:
        if not RUN_ID.match(job):
            raise ValueError(
                f"{job!r} is not a job name: lower-case letters, digits, '-' and '_', 64 at most"
            )
        return job

    @model_validator(mode="after")
    def _labels_are_there(self) -> "Config":
        if self.evaluation.labels == "clicks" and self.clicks is None:
            raise ValueError("evaluation.labels: clicks needs clicks.path, the click log")
        return self

    @model_validator(mode="after")
    def _floors_are_measured(self) -> "Config":
        measured = self.evaluation.measures
        if missing := [name for name in self.guards.measure if name not in measured]:
            raise ValueError(
                f"guards.measure: {', '.join(missing)} is not among evaluation.measures "
                f"({', '.join(measured)})"
            )
        labels = self.clicks if self.evaluation.labels == "clicks" else self.qrels
        if self.guards.measure and labels is None:
            raise ValueError("guards.measure needs judgements: give qrels.path")
        return self

    @model_validator(mode="after")
    def _results_fit_the_candidates(self) -> "Config":
        if self.reranker is None:
            return self
        depths = [("depth", each.depth) for each in self.reranker.cascade if each.depth is not None]
        for name, number in (("reranker.top_k", self.reranker.top_k), *depths):
            if number > self.retrieval.depth:
                raise ValueError(
                    f"{name} ({number}) is larger than retrieval.depth "
                    f"({self.retrieval.depth}): there are no more results than candidates"
                )
        return self

    @model_validator(mode="after")
    def _bm25_is_built(self) -> "Config":
        if "bm25" in self.retrieval.sources and self.index.bm25 is None:
            raise ValueError(
                "retrieval.sources: bm25 needs index.bm25, for example index.bm25: {}, and "
                "build-index once more"
            )
        return self

    def computing(self, system: SystemConfig) -> "Config":
        """The configuration that computes one of its systems.

        Raises:
            ValidationError: the settings of the system do not fit.
        """
        raw = self.model_dump(mode="json", exclude_unset=True)
        raw["index"] = {**raw["index"], **system.index}
        raw["retrieval"] = {**raw.get("retrieval", {}), **system.retrieval}
        if "reranker" in system.model_fields_set:
            raw["reranker"] = system.reranker and system.reranker.model_dump(
                mode="json", exclude_unset=True
            )
        raw["evaluation"] = {**raw.get("evaluation", {}), "systems": {}}
        return Config.model_validate(raw)

    @model_validator(mode="after")
    def _systems_fit(self) -> "Config":
        for name, system in self.evaluation.systems.items():
            if not system.is_computed:
                continue
            try:
                self.computing(system)
            except ValidationError as error:
                problems = "; ".join(explain(problem, Config) for problem in error.errors())
                raise ValueError(f"evaluation.systems.{name}: {problems}") from None
        return self
