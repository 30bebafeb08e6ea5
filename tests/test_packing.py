"""Micro-batches: every text once, under the budget, always cut the same way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.scoring.packing import micro_batches

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


@given(st.integers(1, 100), st.integers(1, 50), st.integers(1, 512))
def test_texts_of_one_length_fill_the_budget(length: int, count: int, budget: int) -> None:
    sizes = [len(batch) for batch in micro_batches([length] * count, budget)]
    assert set(sizes[:-1]) <= {max(1, budget // length)}
