"""What a run took and what that costs: pairs and seconds, billed units, money; one book for all.

Sums come from the commits of the run, so a resumed run has those of every driver; what services
billed comes from the journal of what they were paid for, committed or not. The cluster's price
counts for the time of this driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rerank_batch.config import Config, PriceConfig
from rerank_batch.pipeline.pools import Pool
from rerank_batch.rerankers.cascade import pairs_of, seconds_of
from rerank_batch.rerankers.configured import ScorerInput
from rerank_batch.rerankers.paid import read_journal
from rerank_batch.runs import Run
from rerank_batch.runs.summary import CostBook, ModelWork, PoolTime, Seconds, ServiceBill
from rerank_batch.services.usage import Usage
from rerank_batch.tally import TOKENS


def cost_book(
    run: Run,
    config: Config,
    scorers: Sequence[ScorerInput],
    sums: Mapping[str, float],
    seconds: Seconds,
    pools: Mapping[str, Pool],
) -> CostBook:
    """The book of a run.

    ``models`` says of each model of the cascade what it read and how long that took; ``pools`` the
    CPU and GPU seconds of those that worked; ``services`` what was billed; then the money.
    """
    models = tuple(
        ModelWork(
            model=str(scorer.model),
            depth=scorer.config.depth or config.retrieval.depth,
            pairs=int(sums.get(pairs_of(scorer.number), 0)),
            seconds=round(sums.get(seconds_of(scorer.number), 0.0), 2),
        )
        for scorer in scorers
    )
    used = {
        name: PoolTime(
            actors=pool.size,
            cpu_seconds=round(seconds.stages.get(name, 0.0) * pool.threads, 2),
            gpu_seconds=round(seconds.stages.get(name, 0.0) * pool.num_gpus, 2),
        )
        for name, pool in pools.items()
    }
    services = _services(run, config, scorers)
    billed = sum(service.cost for service in services.values())
    hourly = config.cost.per_hour
    cluster = None if hourly is None else seconds.total / 3600 * hourly
    total = billed + (cluster or 0.0)
    queries = sums.get("queries", 0.0)
    known = cluster is not None or bool(services)
    return CostBook(
        models=models,
        pools=used,
        tokens=int(sums.get(TOKENS, 0)),
        services=services,
        billed=round(billed, 6),
        cluster=None if cluster is None else round(cluster, 6),
        per_1000_queries=round(1000 * total / queries, 6) if known and queries else None,
        currency=config.cost.currency,
    )


def _services(run: Run, config: Config, scorers: Sequence[ScorerInput]) -> dict[str, ServiceBill]:
    """What was billed by each service of the cascade, in its units and in money."""
    numbers = {scorer.number: str(scorer.model) for scorer in scorers if scorer.is_service}
    if not numbers:
        return {}
    used = {number: Usage() for number in numbers}
    paid = dict.fromkeys(numbers, 0.0)
    for _, entry in read_journal(run.root, f"runs/{run.run_id}/"):
        used[entry.stage] += entry.used
        paid[entry.stage] += entry.cost
    return {
        f"{number}. {model}": ServiceBill(
            **asdict(used[number]),
            cost=round(paid[number], 6),
            priced=config.cost.price(model) not in (None, PriceConfig()),
        )
        for number, model in numbers.items()
    }


def cost_lines(book: CostBook) -> dict[str, object]:
    """The lines of the summary."""
    cpu = sum(pool.cpu_seconds for pool in book.pools.values())
    gpu = sum(pool.gpu_seconds for pool in book.pools.values())
    lines: dict[str, object] = {
        "work": f"{book.tokens:,} tokens read in {cpu:,.0f} CPU s"
        + (f" and {gpu:,.0f} GPU s" if gpu else "")
    }
    if len(book.models) > 1:
        lines["cascade"] = "\n".join(
            f"{each.model}: {each.pairs:,} pairs in {each.seconds:,} s" for each in book.models
        )
    for name, service in book.services.items():
        units = {
            "requests": service.requests,
            "search units": service.search_units,
            "tokens": service.tokens,
            "output tokens": service.output_tokens,
            "answers that could not be read": service.unread,
        }
        billed_units = ", ".join(f"{count:,} {unit}" for unit, count in units.items() if count)
        money = f"; {service.cost:,.4f} {book.currency}" if service.priced else ""
        lines[name] = (billed_units or "no request") + money
    if book.per_1000_queries is not None:
        parts = [f"{book.billed:,.4f} billed"] if book.services else []
        if book.cluster is not None:
            parts.append(f"{book.cluster:,.4f} for the cluster")
        lines["cost"] = (
            f"{' and '.join(parts)} ({book.currency}); "
            f"{book.per_1000_queries:,.4f} for 1,000 queries"
        )
    return lines
