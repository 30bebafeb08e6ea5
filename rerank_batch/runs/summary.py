"""The summary of a run: what final.json holds of it, and what became of it when it was finished."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from rerank_batch.remarks import Remark, remark_objects
from rerank_batch.runs.decisions import Guard
from rerank_batch.schema import JsonObject

Rejects = Mapping[str, int]
"""Rejected log rows by reason."""

Metrics = Mapping[str, Mapping[str, float]]
"""The means over judged queries, by system and measure."""


@dataclass(frozen=True)
class Seconds:
    """How long a run took, in seconds: the steps of its driver, and each stage over its actors."""

    plan: float
    start: float
    stages: Mapping[str, float]
    execute: float
    total: float

    @classmethod
    def from_json(cls, value: Mapping[str, float]) -> Self:
        """Read what `to_json` wrote; older runs may lack a step."""
        steps = {name: value.get(name, 0.0) for name in ("plan", "start", "execute", "total")}
        return cls(stages={k: v for k, v in value.items() if k not in steps}, **steps)

    def to_json(self) -> dict[str, float]:
        """One level: the steps, and between them the stages."""
        found = {
            "plan": self.plan,
            "start": self.start,
            **self.stages,
            "execute": self.execute,
            "total": self.total,
        }
        return {name: round(value, 2) for name, value in found.items()}


@dataclass(frozen=True)
class CacheFacts:
    """What the score cache gave a run: pairs, the share that was known, seconds saved.

    ``cached_pairs`` and ``cached_bytes`` are what the cache holds since; None where new scores
    could not be kept.
    """

    known_pairs: int
    scored_pairs: int
    hit_rate: float
    saved_seconds: float
    cached_pairs: int | None = None
    cached_bytes: int | None = None

    def to_json(self) -> JsonObject:
        """The facts that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ModelWork:
    """What one model of a cascade read: pairs to that depth, in so many seconds."""

    model: str
    depth: int
    pairs: int
    seconds: float


@dataclass(frozen=True)
class PoolTime:
    """How many actors worked in a pool, and their seconds of CPUs and GPUs."""

    actors: int
    cpu_seconds: float
    gpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class ServiceBill:
    """What one service billed, in its units and in money; ``priced`` where a price is known."""

    requests: int = 0
    search_units: int = 0
    tokens: int = 0
    output_tokens: int = 0
    unread: int = 0
    cost: float
    priced: bool


@dataclass(frozen=True)
class CostBook:
    """What a run took and cost: by model, by pool of actors, by service, in money.

    ``billed`` and ``cluster`` are in ``currency``; ``cluster`` and ``per_1000_queries`` are None
    where no price is known.
    """

    models: tuple[ModelWork, ...]
    pools: Mapping[str, PoolTime]
    tokens: int
    services: Mapping[str, ServiceBill]
    billed: float
    cluster: float | None
    per_1000_queries: float | None
    currency: str

    @classmethod
    def from_json(cls, value: JsonObject) -> Self:
        """Read the book of final.json; a part that an older version did not write is empty."""
        found = {**asdict(NO_COST), **value}
        return cls(
            **{
                **found,
                "models": tuple(ModelWork(**model) for model in found["models"]),
                "pools": {name: PoolTime(**pool) for name, pool in found["pools"].items()},
                "services": {name: ServiceBill(**bill) for name, bill in found["services"].items()},
            }
        )


NO_COST = CostBook((), {}, 0, {}, 0.0, None, None, "")


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """What final.json holds of a finished run beside its files.

    Counts are of queries, log rows, documents and pairs; ``gate_saved_seconds`` is estimated from
    the pairs that were skipped; ``pairs_per_second`` is of this driver.
    """

    fingerprint: str
    queries: int
    log_rows: int
    left_out: Mapping[str, Any]
    log: Mapping[str, str] | None
    weight: float
    rejects: Rejects
    documents: int
    excluded: Mapping[str, int] | None
    remarks: tuple[Remark, ...]
    index_groups: Mapping[str, list[float]]
    pairs: int
    pairs_skipped: int
    gate_saved_seconds: float
    gated: int
    fell_back: int
    judged: int
    judged_not_in_log: int
    metrics: Metrics
    seconds: Seconds
    cpu_seconds: Mapping[str, float]
    pairs_per_second: float
    peak_memory_gb: float
    events: Mapping[str, int]
    done_before: int
    mode: str | None
    cache: CacheFacts | None
    actors: Mapping[str, int]
    dashboard: str | None
    cost: CostBook

    @classmethod
    def from_final(cls, final: Mapping[str, Any]) -> Self:
        """Read final.json; what an older version did not write yet is empty."""
        known = {each.name for each in fields(cls)}
        found = {**_OF_OLDER_RUNS, **{k: v for k, v in final.items() if k in known}}
        cache = found["cache"]
        return cls(
            **{
                **found,
                "seconds": Seconds.from_json(found["seconds"]),
                "cache": None if cache is None else CacheFacts(**cache),
                "cost": CostBook.from_json(found["cost"]),
                "remarks": tuple(Remark(**remark) for remark in found["remarks"]),
            }
        )

    def to_json(self) -> JsonObject:
        """The same as JSON values."""
        return {
            **asdict(self),
            "remarks": remark_objects(self.remarks),
            "seconds": self.seconds.to_json(),
            "cache": self.cache and self.cache.to_json(),
        }


_OF_OLDER_RUNS: JsonObject = {
    "left_out": {"queries": 0},
    "log": None,
    "excluded": None,
    "remarks": (),
    "index_groups": {},
    "pairs_skipped": 0,
    "gate_saved_seconds": 0.0,
    "gated": 0,
    "fell_back": 0,
    "judged_not_in_log": 0,
    "cpu_seconds": {},
    "peak_memory_gb": 0.0,
    "events": {},
    "mode": None,
    "cache": None,
    "actors": {},
    "dashboard": None,
    "cost": {},
}


@dataclass(frozen=True)
class RunChanges:
    """How a run differs from the last published one, ``since``: queries by text, lists by order.

    ``documents_before`` is None where that run did not say how many there were.
    """

    since: str
    queries_new: int
    queries_gone: int
    lists_changed: int
    lists_same: int
    documents_before: int | None


@dataclass(frozen=True)
class Publication:
    """Whether readers get a run: its guards, and the run that is the latest of its job now."""

    published: bool
    latest: str | None
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """A finished run.

    ``changes`` compares it with the last published one, where it ``was_compared`` and there is one;
    ``publication`` is None where it was not to be published.
    """

    run_id: str
    job: str
    epoch: int
    root: str
    files: str
    totals: RunTotals
    changes: RunChanges | None = None
    was_compared: bool = False
    publication: Publication | None = None

    @property
    def metrics(self) -> Metrics:
        """The means over judged queries, by system and measure."""
        return self.totals.metrics

    @property
    def rejects(self) -> Rejects:
        """Rejected log rows by reason."""
        return self.totals.rejects

    @property
    def cost(self) -> CostBook:
        """What it took and cost."""
        return self.totals.cost

    @property
    def published(self) -> bool:
        """Whether readers of the job get it."""
        return self.publication is not None and self.publication.published

    def to_json(self) -> JsonObject:
        """The object that --json prints."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "epoch": self.epoch,
            **self.totals.to_json(),
            "root": self.root,
            "files": self.files,
            **({"changes": self.changes and asdict(self.changes)} if self.was_compared else {}),
            **(asdict(self.publication) if self.publication else {}),
        }
