"""What a whole run would take, from a sample of its own work done by its own pipeline."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from rerank_batch import schema
from rerank_batch.config import Config
from rerank_batch.data.plan import Plan
from rerank_batch.pipeline.blocks import rows_per_block
from rerank_batch.reporter import Reporter
from rerank_batch.runs.summary import ServiceBill
from rerank_batch.schema import JsonObject
from rerank_batch.workflows.inputs import read_inputs
from rerank_batch.workflows.rerank import try_out


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a whole run would take, from a sample of its queries.

    ``cost`` is None where no price is known; it and ``billed`` are in ``currency``.
    """

    sample_queries: int
    sample_seconds: float
    queries: int
    pairs: int
    hit_rate: float
    busiest_stage: str
    actors: Mapping[str, int]
    mode: str | None
    start_seconds: float
    hours: float
    services: Mapping[str, ServiceBill]
    sample_billed: float
    billed: float
    cost: float | None
    currency: str

    def to_json(self) -> JsonObject:
        """The object that --json prints."""
        return asdict(self)


def estimate(config: Config, queries: int, reporter: Reporter) -> Estimate:
    """Run evenly chosen queries of the plan and scale up what they took.

    The stages work side by side, so a run takes as long as the busiest of them: its seconds for a
    query, over its actors, times the queries, and the start once. Cached scores are used where
    there are any, and none are added, so that trying again finds the same; of a service that means
    that the sample is paid for and its answers are not kept.
    """
    work = read_inputs(config)
    planned = work.plan.queries
    chosen = min(queries, planned.num_rows)
    sample = _sampled(work.plan, chosen)
    # Blocks as large as the run's, as far as the sample goes: larger ones are scored faster.
    rows = min(chosen, rows_per_block(config, planned.num_rows))
    compute = config.compute.model_copy(update={"block_rows": rows})
    totals = try_out(
        config.model_copy(update={"compute": compute}), replace(work, plan=sample), reporter
    )
    seconds, actors = totals.seconds, totals.actors
    per_query = {name: seconds.stages[name] / actors[name] / chosen for name in actors}
    busiest = max(per_query, key=lambda name: per_query[name])
    sample_work = per_query[busiest] * chosen
    fixed = max(seconds.total - sample_work, 0.0)
    hours = (fixed + per_query[busiest] * planned.num_rows) / 3600
    book, price = totals.cost, config.cost.per_hour
    billed = book.billed / chosen * planned.num_rows
    return Estimate(
        sample_queries=chosen,
        sample_seconds=seconds.total,
        queries=planned.num_rows,
        pairs=round(totals.pairs / chosen * planned.num_rows),
        hit_rate=totals.cache.hit_rate if totals.cache else 0.0,
        busiest_stage=busiest,
        actors=actors,
        mode=totals.mode,
        start_seconds=round(fixed, 1),
        hours=hours,
        services=book.services,
        sample_billed=book.billed,
        billed=billed,
        cost=None if price is None and not book.services else hours * (price or 0) + billed,
        currency=config.cost.currency,
    )


def _sampled(plan: Plan, queries: int) -> Plan:
    """So many queries of a plan, evenly chosen and numbered anew, and none of its rejects."""
    which = np.linspace(0, plan.queries.num_rows - 1, queries).astype(np.int64)
    table = plan.queries.take(which)
    number = table.column_names.index(schema.QIDX)
    field = table.schema.field(schema.QIDX)
    table = table.set_column(number, field, [np.arange(queries, dtype=np.int64)])
    return replace(plan, queries=table, rejects=plan.rejects.slice(0, 0), log_rows=queries)
