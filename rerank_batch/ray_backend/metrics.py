"""What a run does, as Prometheus metrics of our own, through the exporter of Ray's nodes.

Counted is what is committed, by whichever driver: a block that was done twice counts once, and a
resumed run begins with what it has. Each name is exported with ``ray_`` before it and, of counters,
``_total`` behind it, with the labels rerank_job and run_id (``job`` is Prometheus' own). Ray takes
them every ten seconds and forgets them with the driver: a run of seconds may not be seen at all.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rerank_batch.tally import PADDED, SPENT, TOKENS

EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Metric:
    """One of them. ``of`` makes its value of the sums of the commits so far."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    of: Callable[[Mapping[str, float]], float]

    @property
    def exported(self) -> str:
        """The name that Prometheus knows."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


def _each(prefix: str) -> Callable[[Mapping[str, float]], float]:
    """The sum over the stages of a cascade."""
    return lambda sums: sum(v for name, v in sums.items() if name.startswith(f"{prefix}."))


def _of(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda sums: sums.get(name, 0.0)


METRICS: tuple[Metric, ...] = (
    Metric("rerank_batch_blocks_done", "counter", "Blocks that are committed.", _of("blocks")),
    Metric("rerank_batch_queries", "counter", "Queries that have results.", _of("queries")),
    Metric("rerank_batch_rejects", "counter", "Log rows that were rejected.", _of("rejects")),
    Metric("rerank_batch_pairs", "counter", "Pairs that a reranker got.", _each("pairs")),
    Metric("rerank_batch_cache_hits", "counter", "Of them known already.", _each("cached_pairs")),
    Metric("rerank_batch_gate_skips", "counter", "Queries no reranker read.", _of("flag.gated")),
    Metric("rerank_batch_tokens", "counter", "Tokens that models here read.", _of(TOKENS)),
    Metric("rerank_batch_padding_tokens", "counter", "Padding beside them.", _of(PADDED)),
    Metric("rerank_batch_cost", "counter", "Money, in cost.currency.", _of("cost")),
    Metric("rerank_batch_blocks_planned", "gauge", "Blocks of the plan.", _of("blocks_planned")),
    Metric("rerank_batch_queries_planned", "gauge", "Queries planned.", _of("queries_planned")),
)


class RunMetrics:
    """The metrics of one run; to be made where Ray is connected.

    ``per_hour`` is the price of the cluster, None where it is not known.
    """

    def __init__(self, job: str, run_id: str, per_hour: float | None = None) -> None:
        from ray.util import metrics

        kinds: dict[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._made = []
        for metric in METRICS:
            made = kinds[metric.kind](metric.name, metric.help, ("rerank_job", "run_id"))
            made.set_default_tags({"rerank_job": job, "run_id": run_id})
            self._made.append((metric, made))
        self._told: dict[str, float] = {}
        self._per_hour = per_hour or 0.0
        self._began = self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to look at the commits again."""
        return time.monotonic() - self._last >= EVERY_SECONDS

    def update(self, sums: Mapping[str, float]) -> None:
        """Tell what the sums have become; what was told before counts once."""
        self._last = time.monotonic()
        hours = (self._last - self._began) / 3600
        now = {**sums, "cost": _each(SPENT)(sums) + hours * self._per_hour}
        for metric, made in self._made:
            value = float(metric.of(now))
            if metric.kind == "gauge":
                made.set(value)
            elif (more := value - self._told.get(metric.name, 0.0)) > 0:
                made.inc(more)
                self._told[metric.name] = value


def run_sums(
    sums: Mapping[str, float], rejects: float, blocks: int, planned: Sequence[int]
) -> dict[str, float]:
    """What `RunMetrics.update` takes; ``planned`` are blocks and queries."""
    return {
        **sums,
        "rejects": rejects,
        "blocks": float(blocks),
        "blocks_planned": float(planned[0]),
        "queries_planned": float(planned[1]),
    }
