"""What a run took and cost, model by model, as plain values out of its cost book.

Knows the keys of the book (``cost`` in final.json, written by `rerank_batch.runs.cost`) and no run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rerank_batch.remarks import NotKnown
from rerank_batch.schema import JsonObject

_UNITS = {
    "requests": ("request", "requests"),
    "search_units": ("search unit", "search units"),
    "tokens": ("token", "tokens"),
    "output_tokens": ("output token", "output tokens"),
    "unread": ("unreadable answer", "unreadable answers"),
}


@dataclass(frozen=True)
class ModelCost:
    """What one model of the cascade read and took; ``seconds`` are summed over its actors.

    ``billed`` are the units of a service in words, empty for a model of one's own. ``money`` and
    ``per_1000_queries`` are None where nothing is billed or no price is known.
    """

    model: str
    depth: int
    pairs: int
    seconds: float
    billed: str
    money: float | None
    per_1000_queries: float | None

    @property
    def pairs_per_second(self) -> float | None:
        """None where nothing was read, or in no time that was measured."""
        return self.pairs / self.seconds if self.pairs and self.seconds else None


@dataclass(frozen=True)
class PoolCost:
    """The work of a pool of actors."""

    pool: str
    actors: int
    cpu_seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class CostTable:
    """The book of one system: ``cluster`` and ``total`` are None where no price is known."""

    system: str
    queries: int
    currency: str
    models: tuple[ModelCost, ...]
    pools: tuple[PoolCost, ...]
    tokens: int
    cluster: float | None
    cluster_per_1000_queries: float | None
    total: float | None
    per_1000_queries: float | None

    @property
    def has_gpus(self) -> bool:
        """Whether any of the work was a GPU's."""
        return any(pool.gpu_seconds for pool in self.pools)

    @property
    def has_services(self) -> bool:
        """Whether anything was billed by units."""
        return any(row.billed for row in self.models)

    @property
    def has_money(self) -> bool:
        """Whether any price is known."""
        return self.total is not None

    def money(self, amount: float) -> str:
        """Two decimals, or more where they would hide a small amount."""
        if amount == 0 or amount >= 1:
            return f"{amount:,.2f}"
        return f"{amount:.4f}" if amount >= 0.01 else f"{amount:.6f}"

    def to_json(self) -> JsonObject:
        """The table as JSON values."""
        return {
            "queries": self.queries,
            "currency": self.currency,
            "models": [
                {**vars(row), "pairs_per_second": row.pairs_per_second} for row in self.models
            ],
            "cluster": self.cluster,
            "total": self.total,
            "per_1000_queries": self.per_1000_queries,
            "in_words": self.in_words(),
        }

    def in_words(self) -> str:
        """What 1,000 queries cost, or why that is not known."""
        if self.per_1000_queries is None or self.total is None:
            return (
                "No price is known, so this is work and not money: cost.per_hour is the cluster's, "
                "cost.prices are those of services."
            )
        unpriced = [row.model for row in self.models if row.billed and row.money is None]
        but = f", without {' and '.join(unpriced)}, whose price is not known" if unpriced else ""
        return (
            f"1,000 queries cost {self.money(self.per_1000_queries)} {self.currency}; these "
            f"{self.queries:,} cost {self.money(self.total)}{but}."
        )


def cost_table(book: Mapping[str, Any] | None, queries: int, system: str) -> CostTable | NotKnown:
    """Read the book of a run of so many ``queries``."""
    if book is None:
        return NotKnown("it was written before runs kept a book of their cost")
    models = tuple(
        _model(number, each, book["services"], queries)
        for number, each in enumerate(book["models"], start=1)
    )
    known = book["per_1000_queries"] is not None
    return CostTable(
        system=system,
        queries=queries,
        currency=book["currency"],
        models=models,
        pools=tuple(
            PoolCost(name, pool["actors"], pool["cpu_seconds"], pool["gpu_seconds"])
            for name, pool in book["pools"].items()
        ),
        tokens=book["tokens"],
        cluster=book["cluster"],
        cluster_per_1000_queries=_per_1000(book["cluster"], queries),
        total=book["billed"] + (book["cluster"] or 0.0) if known else None,
        per_1000_queries=book["per_1000_queries"],
    )


def _model(
    number: int, model: Mapping[str, Any], services: Mapping[str, Any], queries: int
) -> ModelCost:
    name = str(model["model"])
    service = services.get(f"{number}. {name}")
    money = service["cost"] if service and service["priced"] else None
    return ModelCost(
        name,
        model["depth"],
        model["pairs"],
        model["seconds"],
        _billed(service) if service else "",
        money,
        _per_1000(money, queries),
    )


def _billed(service: Mapping[str, Any]) -> str:
    units = [
        f"{service[unit]:,} {names[service[unit] != 1]}"
        for unit, names in _UNITS.items()
        if service.get(unit)
    ]
    return ", ".join(units) or "nothing"


def _per_1000(amount: float | None, queries: int) -> float | None:
    return None if amount is None or not queries else 1000 * amount / queries
