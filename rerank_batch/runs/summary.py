"""The summary of a run: what final.json holds of it, and what became of it when it was finished."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

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

    def to_json(self) -> dict[str, Any]:
        """The facts that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class CostBook:
    """What a run took and cost: by model, by pool of actors, by service, in money.

    ``billed`` and ``cluster`` are in ``currency``; ``cluster`` and ``per_1000_queries`` are None
    where no price is known.
    """

    models: list[dict[str, Any]]
    pools: dict[str, dict[str, Any]]
    tokens: int
    services: dict[str, dict[str, Any]]
    billed: float
    cluster: float | None
    per_1000_queries: float | None
    currency: str


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
    remarks: list[dict[str, Any]]
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
                "cost": CostBook(**{**_OF_OLDER_RUNS["cost"], **found["cost"]}),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            **asdict(self),
            "seconds": self.seconds.to_json(),
            "cache": self.cache and self.cache.to_json(),
        }


_OF_OLDER_RUNS: dict[str, Any] = {
    "left_out": {"queries": 0},
    "log": None,
    "excluded": None,
    "remarks": [],
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
    "cost": asdict(CostBook([], {}, 0, {}, 0.0, None, None, "")),
}


@dataclass(frozen=True)
class Publication:
    """Whether readers get a run: its guards, and the run that is the latest of its job now."""

    published: bool
    latest: str | None
    guards: list[dict[str, Any]] = field(default_factory=list)


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
    changes: Mapping[str, Any] | None = None
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

    def to_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "epoch": self.epoch,
            **self.totals.to_json(),
            "root": self.root,
            "files": self.files,
            **({"changes": self.changes} if self.was_compared else {}),
            **(asdict(self.publication) if self.publication else {}),
        }
