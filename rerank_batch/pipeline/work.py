"""What a run works on: its queries, index and rerankers, and the stages that these make."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rerank_batch.config import Ingredients
from rerank_batch.config.root import Config
from rerank_batch.data.plan import Plan
from rerank_batch.data.qrels import Qrels
from rerank_batch.index.open import Index
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.pipeline.placement import Groups, Search
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.remarks import Remark
from rerank_batch.rerankers.configured import ScorerInput
from rerank_batch.rerankers.stages import ScorerUse
from rerank_batch.retrieval.excluded import Excluded
from rerank_batch.retrieval.given import Given


@dataclass(frozen=True)
class StagePlan:
    """What the stages of a run depend on beside its work: the cluster and what is decided on it.

    ``uses`` are the rerankers as workers need them, ``groups`` the shards of each search by node.
    """

    resources: Cluster
    block_rows: int
    uses: Sequence[ScorerUse]
    groups: Groups


@dataclass(frozen=True)
class Work(ABC):
    """What a run works on, what it is made of (the fingerprint's ingredients), what looks wrong.

    There are two kinds: the run of one reranker, and the comparison of several systems.
    ``generations`` are those of the indexes that it reads, by where the index lies.
    """

    plan: Plan
    qrels: Qrels | None
    index: Index
    encoder: ModelPin
    scorers: tuple[ScorerInput, ...]
    made_of: Ingredients
    given: Given | None = None
    excluded: Excluded = field(default_factory=Excluded)
    generations: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    @cached_property
    def planned_ids(self) -> set[str]:
        """Every id that a planned query stands for."""
        return {a for ids in self.plan.queries.column("query_ids").to_pylist() for a in ids}

    @cached_property
    def rejected_ids(self) -> set[str]:
        """Ids that the plan rejected and that no planned query stands for."""
        return set(self.plan.rejects.column("query_id").to_pylist()) - self.planned_ids

    @property
    def planned_qrels(self) -> Qrels:
        """The judgements of planned queries."""
        return {q: grades for q, grades in (self.qrels or {}).items() if q in self.planned_ids}

    @property
    def judged_queries(self) -> int:
        """Planned queries with at least one judgement."""
        qrels = self.qrels or {}
        listed = self.plan.queries.column("query_ids").to_pylist()
        return sum(any(alias in qrels for alias in ids) for ids in listed)

    @property
    def judged_rejects(self) -> int:
        """Judged queries that the plan rejected: they score 0 in every mean."""
        return len(self.rejected_ids & set(self.qrels or {}))

    @property
    def judged_elsewhere(self) -> int:
        """Judged queries that the log does not hold: not asked, so not counted in any mean."""
        return len(set(self.qrels or {}) - self.planned_ids - self.rejected_ids)

    @property
    @abstractmethod
    def systems(self) -> tuple[str, ...]:
        """The names of the systems that are compared; none in the run of one reranker."""

    @abstractmethod
    def searches(self, config: Config) -> dict[str, Search]:
        """What is searched, by the name of the stage that searches it."""

    @abstractmethod
    def pairs_at_most(self, config: Config) -> list[int]:
        """How many documents of a query each scorer reads at most."""

    @abstractmethod
    def stages(self, config: Config, plan: StagePlan) -> list[StageSpec]:
        """The stages of the pipeline, in order."""
