"""The text store: shards of one size, and documents found by number and by id."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.data.text_store import TextStore, content, shard_bounds, write_texts


@given(st.integers(1, 10**9), st.integers(1, 300))
def test_shards_cover_every_document_once_and_are_of_one_size(documents: int, shards: int) -> None:
    bounds = shard_bounds(documents, shards)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == documents
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert len(sizes) == min(shards, documents)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.data(), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_store_answers_in_the_order_asked_repeats_included(
    data: st.DataObject, count: int, shards: int
) -> None:
    rows = [
        {"doc_id": f"d{n:02d}", "title": "é" * (n % 3), "text": f"text {n}"} for n in range(count)
    ]
    schema = pa.schema([(name, pa.large_string()) for name in ("doc_id", "title", "text")])
    bounds = shard_bounds(count, shards)
    asked = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        files = write_texts(pa.Table.from_pylist(rows, schema=schema), bounds, Path(folder))
        store = TextStore(files, bounds)
        numbers = np.array(asked, dtype=np.int64)
        assert len(files) == len(bounds)
        assert len(store) == count
        assert store.ids(numbers) == [rows[n]["doc_id"] for n in asked]
        expected = [content(rows[n]["title"], rows[n]["text"]) for n in asked]
        assert store.contents(numbers) == expected


@pytest.mark.parametrize("number", [-1, 3])
def test_the_store_refuses_numbers_that_no_document_has(tmp_path: Path, number: int) -> None:
    documents = pa.table({name: pa.array(["a", "b", "c"]) for name in ("doc_id", "title", "text")})
    bounds = shard_bounds(3, 2)
    store = TextStore(write_texts(documents, bounds, tmp_path / "texts"), bounds)
    with pytest.raises(IndexError):
        store.ids(np.array([number]))


def test_a_passage_is_the_title_a_blank_and_the_text() -> None:
    assert content("Title", "text") == "Title text"
    assert content("", "text") == "text"
    assert content(" ", "text") == "text"


@given(
    st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1),
    st.lists(st.text(max_size=3), max_size=5),
    st.integers(1, 5),
)
@settings(max_examples=30)
def test_a_document_is_found_by_its_id(ids: set[str], others: list[str], shards: int) -> None:
    """Whatever the shards, and nothing is found under an id that nobody has."""
    listed = sorted(ids)
    columns = [listed, [""] * len(listed), [f"text of {each}" for each in listed]]
    documents = pa.table(
        [pa.array(column, pa.large_string()) for column in columns],
        names=["doc_id", "title", "text"],
    )
    bounds = shard_bounds(len(listed), shards)
    with tempfile.TemporaryDirectory() as folder:
        texts = TextStore(write_texts(documents, bounds, Path(folder)), bounds)
        asked = [*others, *reversed(listed)]
        numbers = texts.numbers(asked)
        assert [n >= 0 for n in numbers] == [each in ids for each in asked]
        assert texts.ids(numbers[numbers >= 0]) == [each for each in asked if each in ids]
        assert texts.numbers([]).dtype == np.int64
