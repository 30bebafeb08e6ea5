"""Blocks, the bitmap of what is done, and the proof that every query is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.errors import RunConflict
from rerank_batch.runs import Done, block_bounds
from rerank_batch.runs.coverage import check_coverage


@given(st.integers(1, 100_000), st.integers(1, 5000))
def test_blocks_cover_all_rows_and_none_is_small_enough_to_be_joined(rows: int, size: int) -> None:
    bounds = block_bounds(rows, size)
    check_coverage(bounds, rows, "run-1")
    sizes = [stop - start for start, stop in bounds]
    assert set(sizes[:-1]) <= {size}
    assert size <= sizes[-1] < 2 * size or sizes == [rows]


@pytest.mark.parametrize(
    ("covered", "complaint"),
    [
        ([], "queries 0 to 9 are missing"),
        ([(0, 4), (6, 10)], "queries 4 to 5 are missing"),
        ([(2, 10)], "queries 0 to 1 are missing"),
        ([(0, 9)], "queries 9 to 9 are missing"),
        ([(0, 6), (4, 10)], "queries from 4 are there twice"),
        ([(0, 10), (3, 4)], "queries from 3 are there twice"),
        ([(0, 12)], "queries from 10 are beyond the plan"),
    ],
)
def test_the_first_fault_is_named(covered: list[tuple[int, int]], complaint: str) -> None:
    with pytest.raises(RunConflict, match=f"run-1: {complaint}"):
        check_coverage(covered, 10, "run-1")


def test_queries_beyond_the_plan_are_not_called_missing() -> None:
    with pytest.raises(RunConflict) as error:
        check_coverage([(0, 5)], 3, "run-1")
    assert "missing" not in str(error.value)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=8))
def test_coverage_holds_exactly_for_each_number_once(pieces: list[tuple[int, int]]) -> None:
    covered = [(start, start + length) for start, length in pieces]
    numbers = sorted(n for start, stop in covered for n in range(start, stop))
    if numbers == list(range(len(numbers))):
        check_coverage(covered, len(numbers), "run-1")
    else:
        with pytest.raises(RunConflict):
            check_coverage(covered, len(numbers), "run-1")


@given(st.data(), st.integers(0, 70))
def test_the_bitmap_is_a_set_of_numbers(data: st.DataObject, planned: int) -> None:
    done, model = Done(planned), set[int]()
    spans = st.tuples(st.integers(0, planned), st.integers(0, planned))
    for start, stop in data.draw(st.lists(spans, max_size=8)):
        assert done.covers(start, stop) == model.issuperset(range(start, stop))
        done.add(start, stop)
        model |= set(range(start, stop))
        assert len(done) == len(model)
        assert done.covers(start, stop)
    assert [done.covers(n, n + 1) for n in range(planned)] == [n in model for n in range(planned)]


def test_a_hundred_million_queries_fit_into_memory() -> None:
    assert Done(100_000_000).bytes == 12_500_000
