"""Micro-batches: every text once, under the budget, always cut the same way."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rerank_batch import tally
from rerank_batch.scoring.packing import TokenBudget


def micro_batches(lengths: Sequence[int] | NDArray[np.int64], budget: int) -> list[Any]:
    """The batches as an ordinary forward pass sees them."""
    batches: list[Any] = []
    TokenBudget(budget).each(lengths, batches.append)
    return batches


LENGTHS = st.lists(st.integers(0, 300), max_size=60)


@given(LENGTHS, st.integers(1, 512))
def test_every_text_is_in_one_batch_and_batches_keep_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = [batch.tolist() for batch in micro_batches(lengths, budget)]
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert longest * len(batch) <= budget or len(batch) == 1


@given(LENGTHS, st.integers(1, 512))
def test_batches_go_from_long_to_short_and_equal_lengths_keep_their_order(
    lengths: list[int], budget: int
) -> None:
    batches = list(micro_batches(np.array(lengths, dtype=np.int64), budget))
    places = [int(place) for batch in batches for place in batch]
    assert places == sorted(places, key=lambda place: (-max(lengths[place], 1), place))
    again = list(micro_batches(lengths, budget))
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@given(LENGTHS, st.integers(1, 512))
def test_even_batches_are_of_one_length_and_no_more_than_that_takes(
    lengths: list[int], budget: int
) -> None:
    batches: list[Any] = []
    TokenBudget(budget).each(lengths, batches.append, even=True)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    seen = [{max(lengths[place], 1) for place in batch} for batch in batches]
    assert all(len(each) == 1 for each in seen)
    for (length,), number in Counter(frozenset(each) for each in seen).items():
        count = sum(max(each, 1) == length for each in lengths)
        assert number == -(-count // max(1, budget // length))


@given(st.integers(1, 100), st.integers(1, 50), st.integers(1, 512))
def test_texts_of_one_length_fill_the_budget(length: int, count: int, budget: int) -> None:
    sizes = [len(batch) for batch in micro_batches([length] * count, budget)]
    assert set(sizes[:-1]) <= {max(1, budget // length)}


# --- out of memory -----------------------------------------------------------------------------

CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 137438953472 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = {
    "MemoryError": lambda: MemoryError(),
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "RuntimeError": lambda: RuntimeError(CPU_ALLOCATOR),
}


@pytest.fixture(autouse=True)
def no_events_from_elsewhere() -> Iterator[None]:
    tally.drain()
    yield
    tally.drain()


class Memory:
    """A forward pass with room for so many tokens; counts what it completed."""

    def __init__(self, lengths: Sequence[int], room: int, error: Callable[[], Exception]) -> None:
        self.lengths = np.maximum(lengths, 1)
        self.room = room
        self.error = error
        self.done: Counter[int] = Counter()
        self.failures = 0

    def __call__(self, positions: NDArray[np.int64]) -> None:
        if self.lengths[positions].max() * len(positions) > self.room:
            self.failures += 1
            raise self.error()
        self.done.update(positions.tolist())


@pytest.mark.parametrize("error", ERRORS)
@given(st.lists(st.integers(0, 60), max_size=80), st.integers(60, 400), st.integers(1, 4000))
def test_where_memory_runs_out_every_text_is_still_done_exactly_once(
    error: str, lengths: list[int], room: int, tokens: int
) -> None:
    tally.drain()
    memory, budget = Memory(lengths, room, ERRORS[error]), TokenBudget(tokens)
    budget.each(lengths, memory)
    assert memory.done == Counter(range(len(lengths)))
    assert sum(tally.drain().counts.values()) == memory.failures
    assert memory.failures <= np.log2(4000) + 1
    assert budget.tokens <= tokens
    if not memory.failures:
        assert budget.tokens == tokens


@pytest.mark.parametrize("error", ERRORS)
def test_the_budget_ends_within_what_there_is_and_stays_there(error: str) -> None:
    lengths = [10] * 500
    budget = TokenBudget(4096)
    first = Memory(lengths, 600, ERRORS[error])
    budget.each(lengths, first)
    assert 300 <= budget.tokens <= 600
    assert first.failures == 3
    counted = tally.drain().counts
    assert sum(counted.values()) == 3
    assert all("out of memory" in what and "budget" in what for what in counted)
    second = Memory(lengths, 600, ERRORS[error])
    budget.each(lengths, second)
    assert second.failures == 0
    assert tally.drain().counts == {}


def test_a_short_last_batch_that_fails_halves_what_it_asked_for() -> None:
    """Not the budget, of which it was a small part: else it would be tried in vain again."""
    memory, budget = Memory([8, 8, 8, 8], 16, ERRORS["MemoryError"]), TokenBudget(1 << 20)
    budget.each([8, 8, 8, 8], memory)
    assert memory.failures == 1
    assert budget.tokens == 16


@pytest.mark.parametrize("error", ERRORS)
def test_one_text_that_does_not_fit_alone_is_an_error(error: str) -> None:
    lengths = [5, 300, 5]
    memory, budget = Memory(lengths, 200, ERRORS[error]), TokenBudget(4096)
    with pytest.raises(type(ERRORS[error]())):
        budget.each(lengths, memory)
    assert memory.done == Counter()
    assert memory.failures < 5


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no")]
)
def test_another_error_passes_through_at_once(error: Exception) -> None:
    def forward(_: Any) -> None:
        seen.append(1)
        raise error

    seen: list[int] = []
    budget = TokenBudget(100)
    with pytest.raises(type(error), match=str(error)):
        budget.each([5] * 10, forward)
    assert len(seen) == 1
    assert budget.tokens == 100
    assert tally.drain().counts == {}
