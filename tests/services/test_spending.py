"""The budget: what is spent and under way stays within the cap, part by part and as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.config import PriceConfig
from rerank_batch.errors import SpendCapReached
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage

PRICE = PriceConfig(search_unit=1.0)


def units(count: int) -> Usage:
    return Usage(search_units=count)


def test_each_kind_of_unit_has_its_price() -> None:
    price = PriceConfig(request=1, search_unit=10, million_tokens=100, million_output_tokens=1000)
    used = Usage(requests=2, search_units=3, tokens=4_000_000, output_tokens=500_000, unread=7)
    assert used.cost(price) == 2 + 30 + 400 + 500
    assert (used + used).cost(price) == 2 * used.cost(price)


def test_what_is_under_way_counts_as_it_was_expected_until_it_is_settled() -> None:
    budget = Budget(PRICE, cap=10)
    budget.reserve(units(6))
    with pytest.raises(SpendCapReached):
        budget.reserve(units(5))
    budget.settle(units(6), units(2))
    assert budget.spent == 2
    budget.reserve(units(8))


def test_a_part_is_set_aside_as_a_whole_and_what_is_left_of_it_comes_back() -> None:
    budget = Budget(PRICE, cap=10)
    with budget.part(units(6)) as part:
        with pytest.raises(SpendCapReached):
            budget.reserve(units(5))
        part.reserve(units(3))
        part.settle(units(3), units(1))
        assert budget.spent == 1
    budget.reserve(units(9))
    with pytest.raises(SpendCapReached), Budget(PRICE, cap=5).part(units(6)):
        pass


def test_a_try_that_came_to_nothing_leaves_its_money_to_the_next_one() -> None:
    budget = Budget(PRICE, cap=6)
    with budget.part(units(6)) as part:
        for _ in range(5):
            part.reserve(units(6))
            part.settle(units(6), units(0))
        part.reserve(units(6))
        part.settle(units(6), units(6))
    assert budget.spent == 6


@given(
    cap=st.integers(1, 40),
    plans=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))),
        max_size=8,
    ),
)
def test_the_cap_is_never_passed_by_calls_that_keep_to_what_was_expected(
    cap: int, plans: list[tuple[int, list[tuple[int, int]]]]
) -> None:
    """Parts with any calls in them, retries beyond the part included."""
    budget = Budget(PRICE, cap=cap)
    for aside, calls in plans:
        try:
            with budget.part(units(aside)) as part:
                for expected, used in calls:
                    part.reserve(units(expected))
                    part.settle(units(expected), units(min(used, expected)))
                    assert budget.spent <= cap
        except SpendCapReached:
            pass
    assert budget.spent <= cap
    budget.reserve(units(cap - int(budget.spent)))  # nothing is held for ever
