"""What a run cost: the book of final.json as rows that say what is known and what is not."""

from typing import Any

import pytest

from rerank_batch.evaluation.cost.study import CostTable, cost_table
from rerank_batch.remarks import NotKnown

BILLED = {"requests": 400, "search_units": 1, "tokens": 0, "output_tokens": 0, "unread": 0}
BOOK: dict[str, Any] = {
    "models": [
        {"model": "late-interaction:x", "depth": 50, "pairs": 20_000, "seconds": 80.0},
        {"model": "cohere:rerank", "depth": 10, "pairs": 4_000, "seconds": 0.0},
    ],
    "pools": {"rerank": {"actors": 2, "cpu_seconds": 160.0, "gpu_seconds": 0.0}},
    "tokens": 9_000,
    "services": {"2. cohere:rerank": {**BILLED, "cost": 0.8, "priced": True}},
    "billed": 0.8,
    "cluster": 0.2,
    "per_1000_queries": 2.5,
    "currency": "EUR",
}


def table(**changes: Any) -> CostTable:
    found = cost_table({**BOOK, **changes}, 400, "cascade")
    assert isinstance(found, CostTable)
    return found


def test_a_row_per_model_with_its_pace_and_its_bill() -> None:
    found = table()
    first, second = found.models
    assert (first.pairs_per_second, first.billed, first.money) == (250, "", None)
    assert second.pairs_per_second is None
    assert second.billed == "400 requests, 1 search unit"
    assert (second.money, second.per_1000_queries) == (0.8, 2.0)
    assert (found.cluster, found.cluster_per_1000_queries, found.total) == (0.2, 0.5, 1.0)
    assert found.in_words() == "1,000 queries cost 2.50 EUR; these 400 cost 1.00."


def test_a_model_that_is_there_twice_has_its_own_bill_each_time() -> None:
    model = {"model": "llm:m", "depth": 10, "pairs": 10, "seconds": 1.0}
    services = {
        f"{number}. llm:m": {**BILLED, "requests": number, "cost": 0.1 * number, "priced": True}
        for number in (1, 2)
    }
    found = table(models=[model, model], services=services)
    assert [row.money for row in found.models] == [0.1, 0.2]


def test_without_prices_it_is_work_and_not_money() -> None:
    found = table(services={}, billed=0.0, cluster=None, per_1000_queries=None)
    assert not found.has_money and not found.has_services
    assert "No price is known" in found.in_words()


def test_a_service_without_a_price_is_named_beside_the_total() -> None:
    unpriced = {"2. cohere:rerank": {**BILLED, "cost": 0.0, "priced": False}}
    found = table(services=unpriced, billed=0.0, per_1000_queries=0.5)
    assert found.models[1].money is None
    assert found.in_words() == (
        "1,000 queries cost 0.5000 EUR; these 400 cost 0.2000, without cohere:rerank, "
        "whose price is not known."
    )


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (1234.5, "1,234.50"), (0.0213, "0.0213"), (0.00021, "0.000210")],
)
def test_small_amounts_are_not_rounded_away(amount: float, text: str) -> None:
    assert table().money(amount) == text


def test_a_run_of_no_queries_and_one_without_a_book() -> None:
    found = cost_table({**BOOK, "per_1000_queries": None}, 0, "x")
    assert isinstance(found, CostTable)
    assert found.models[1].per_1000_queries is None
    assert isinstance(cost_table(None, 400, "x"), NotKnown)
