"""Remarks: ids of which most match nothing, and how a summary shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rerank_batch import schema
from rerank_batch.config import CorpusConfig
from rerank_batch.data.corpus import corpus_remarks, read_corpus
from rerank_batch.data.outcomes import OUTCOMES, Outcomes
from rerank_batch.data.plan import LeftOut, Plan
from rerank_batch.data.text_store import TextStore, write_texts
from rerank_batch.evaluation.ground_truth import Labels
from rerank_batch.remarks import IDS_MATCH_NOTHING, Remark, unmatched
from rerank_batch.workflows.input_facts import (
    as_objects,
    of_documents,
    of_labels,
    of_outcomes,
    remark_lines,
    together,
)
from tests.support.helpers import write_parquet


def found(ids: Sequence[str], known: set[str]) -> Remark | None:
    return unmatched("qrels", "judged documents", ids, known.intersection, "the corpus")


def test_half_of_the_ids_may_be_missing() -> None:
    assert found([], {"a"}) is None
    assert found(["a", "b"], {"a"}) is None
    remark = found(["a", "b", "c"], {"a"})
    assert remark is not None
    assert (remark.section, remark.kind, remark.count) == ("qrels", IDS_MATCH_NOTHING, 2)
    assert str(remark) == (
        "qrels: 2 of 3 judged documents are not in the corpus, such as 'b', 'c'. Do the ids have "
        "another form there?"
    )


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("D001", "d001"),
        ("d001", "D001"),
        ("007", "7"),
        ("7", "007"),
        ("7.0", "7"),
        ("7", "7.0"),
        ("doc:7", "7"),
        ("https://x.org/doc/7", "7"),
        ("D007", "7"),
        (" d1 ", "d1"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_another_form_of_an_id_is_pointed_out(listed: str, there: str) -> None:
    remark = found(["nowhere", listed], {there})
    assert remark is not None
    assert f"have another form there: {listed!r} is {there!r}" in remark.text


@pytest.fixture
def texts(tmp_path: Path) -> TextStore:
    columns = {name: pa.array([f"d{n}" for n in range(5)]) for name in ("doc_id", "title", "text")}
    files = write_texts(pa.table(columns), [(0, 5)], tmp_path / "texts")
    return TextStore(files, [(0, 5)])


def test_documents_are_looked_up_in_the_index(texts: TextStore) -> None:
    assert of_documents("retrieval.exclude", "ids of the list", ["d1", "x"], texts) == []
    (remark,) = of_documents("retrieval.exclude", "ids of the list", ["D1", "D2", "d3"], texts)
    assert remark.count == 2
    assert "'D1' is 'd1'" in remark.text


def test_of_very_many_documents_some_are_looked_up(
    texts: TextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_batch.workflows.input_facts._LOOKED_UP", 10)
    (remark,) = of_documents("qrels", "judged documents", [f"x{n}" for n in range(1000)], texts)
    assert "10 of 10 judged documents" in remark.text


def planned(left_out: int = 0) -> Plan:
    empty = schema.REJECTS.empty_table()
    return Plan(schema.PLAN.empty_table(), empty, 0, LeftOut(queries=left_out))


def test_judgements_of_another_log_and_of_another_corpus_are_told(texts: TextStore) -> None:
    qrels = {"q1": {"d1": 1, "x1": 1, "x2": 1}, "q2": {"d1": 1}, "q3": {"d1": 1}}
    labels = Labels(qrels, None)
    remarks = of_labels(labels, planned(), {"q1"}, texts)
    assert [str(remark).partition(", such")[0] for remark in remarks] == [
        "qrels: 2 of 3 judged documents are not in the corpus",
        "qrels: 2 of 3 judged queries are not in the log",
    ]
    assert of_labels(labels, planned(), {"q1", "q2"}, texts) == remarks[:1]
    # What queries.head left out is in the log all the same.
    assert of_labels(labels, planned(left_out=2), {"q1"}, texts) == remarks[:1]
    assert of_labels(None, planned(), {"q1"}, texts) == []


def test_outcomes_of_other_queries_are_told() -> None:
    rows = [["q1", "Q2", "Q3"], ["s"] * 3, ["o"] * 3, [1.0] * 3]
    table = pa.table([pa.array(column) for column in rows], schema=OUTCOMES)
    (remark,) = of_outcomes(Outcomes(3, table, {}), {"q1", "q2", "q3"})
    assert (remark.section, remark.count) == ("outcomes", 2)
    assert "'Q2' is 'q2'" in remark.text
    assert of_outcomes(None, set()) == []


def test_a_summary_has_each_remark_once_as_an_object_and_a_line() -> None:
    one, other = Remark("corpus", "some_kind", 2, "one"), Remark("qrels", "some_kind", 1, "other")
    objects = together(as_objects([one]), [one, other])
    assert objects == (
        {"section": "corpus", "kind": "some_kind", "count": 2, "text": "one"},
        {"section": "qrels", "kind": "some_kind", "count": 1, "text": "other"},
    )
    assert remark_lines({"remarks": objects}) == {"remarks": "corpus: one\nqrels: other"}
    assert remark_lines({"remarks": []}) == {}
    assert remark_lines({}) == {}, "a run of an earlier version has none"


def test_titles_that_only_some_files_have_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"doc_id": "a", "text": "x"}]
    write_parquet(tmp_path / "p/1.parquet", rows)
    write_parquet(tmp_path / "p/2.parquet", [{"doc_id": "b", "text": "x", "title": "y"}])
    config = CorpusConfig(path=f"{tmp_path}/p")
    corpus = read_corpus(config)
    (remark,) = corpus.remarks
    assert (remark.kind, remark.count) == ("column_in_some_files", 1)
    assert corpus_remarks(config) == corpus.remarks, "by the footers alone"
    (tmp_path / "1.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    (tmp_path / "2.jsonl").write_text('{"_id": "b", "text": "x", "title": "y"}\n')
    (remark,) = read_corpus(CorpusConfig(path=f"{tmp_path}/*.jsonl")).remarks
    assert (remark.kind, remark.count) == ("column_in_some_files", 1)
    assert "1 of 2 files" in remark.text
    assert read_corpus(CorpusConfig(path=f"{tmp_path}/1.jsonl")).remarks == ()
