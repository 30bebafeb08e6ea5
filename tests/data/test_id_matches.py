"""Ids of documents that are none of the corpus."""

from pathlib import Path

import pyarrow as pa
import pytest

from rerank_batch.data.id_matches import unmatched_documents
from rerank_batch.data.text_store import TextStore, write_texts


@pytest.fixture
def texts(tmp_path: Path) -> TextStore:
    columns = {name: pa.array([f"d{n}" for n in range(5)]) for name in ("doc_id", "title", "text")}
    files = write_texts(pa.table(columns), [(0, 5)], tmp_path / "texts")
    return TextStore(files, [(0, 5)])


def test_documents_are_looked_up_in_the_index(texts: TextStore) -> None:
    assert unmatched_documents("retrieval.exclude", "ids of the list", ["d1", "x"], texts) == []
    (remark,) = unmatched_documents(
        "retrieval.exclude", "ids of the list", ["D1", "D2", "d3"], texts
    )
    assert remark.count == 2
    assert "'D1' is 'd1'" in remark.text


def test_of_very_many_documents_some_are_looked_up(
    texts: TextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_batch.data.id_matches._LOOKED_UP", 10)
    (remark,) = unmatched_documents(
        "qrels", "judged documents", [f"x{n}" for n in range(1000)], texts
    )
    assert "10 of 10 judged documents" in remark.text
