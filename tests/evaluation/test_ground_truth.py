"""What a run is measured against: ids of judgements that another log or corpus has."""

from pathlib import Path

import pyarrow as pa
import pytest

from rerank_batch import schema
from rerank_batch.data.plan import LeftOut, Plan
from rerank_batch.data.text_store import TextStore, write_texts
from rerank_batch.evaluation.ground_truth import GroundTruth, label_remarks


@pytest.fixture
def texts(tmp_path: Path) -> TextStore:
    columns = {name: pa.array([f"d{n}" for n in range(5)]) for name in ("doc_id", "title", "text")}
    files = write_texts(pa.table(columns), [(0, 5)], tmp_path / "texts")
    return TextStore(files, [(0, 5)])


def planned(left_out: int = 0) -> Plan:
    empty = schema.REJECTS.empty_table()
    return Plan(schema.PLAN.empty_table(), empty, 0, LeftOut(queries=left_out))


def test_judgements_of_another_log_and_of_another_corpus_are_told(texts: TextStore) -> None:
    qrels = {"q1": {"d1": 1, "x1": 1, "x2": 1}, "q2": {"d1": 1}, "q3": {"d1": 1}}
    labels = GroundTruth(qrels, None)
    remarks = label_remarks(labels, planned(), {"q1"}, texts)
    assert [str(remark).partition(", such")[0] for remark in remarks] == [
        "qrels: 2 of 3 judged documents are not in the corpus",
        "qrels: 2 of 3 judged queries are not in the log",
    ]
    assert label_remarks(labels, planned(), {"q1", "q2"}, texts) == remarks[:1]
    # What queries.head left out is in the log all the same.
    assert label_remarks(labels, planned(left_out=2), {"q1"}, texts) == remarks[:1]
    assert label_remarks(None, planned(), {"q1"}, texts) == []
