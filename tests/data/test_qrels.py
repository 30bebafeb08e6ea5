"""Judgements: three formats, one meaning; damage and contradictions are named."""

from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import QrelsConfig
from rerank_batch.data.qrels import Qrels, merge_grades, read_qrels
from rerank_batch.errors import ConfigError, InputError
from tests.support.helpers import write_parquet

EXPECTED = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}
BEIR = "q1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n"
TREC = "q1 0 d1 2\nq1 Q0 d2 0\nq2 0 d1 -1\n"


def read(path: Path, text: str | None = None, **settings: Any) -> Qrels:
    if text is not None:
        path.write_text(text)
    return read_qrels(QrelsConfig(path=str(path), **settings))


def judgement(query: Any, document: Any, grade: Any, **more: Any) -> dict[str, Any]:
    return {"query_id": query, "doc_id": document, "relevance": grade, **more}


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("q.tsv", BEIR, "auto"),
        ("q.tsv", f"query-id\tcorpus-id\tscore\n{BEIR}", "auto"),
        ("q.tsv", f"query-id\tcorpus-id\tscore\n{BEIR}", "beir"),
        ("q.tsv", BEIR.replace("\n", "\r\n"), "auto"),
        ("q.qrels", TREC, "auto"),
        ("q.txt", TREC, "trec"),
        ("q.txt", f"\n{TREC}\n\n", "auto"),
    ],
)
def test_text_formats_with_and_without_heading(
    tmp_path: Path, name: str, text: str, format: str
) -> None:
    assert read(tmp_path / name, text, format=format) == EXPECTED


def test_parquet_whatever_the_integer_type(tmp_path: Path) -> None:
    rows = [judgement("q1", "d1", 2), judgement("q1", "d2", 0), judgement("q2", "d1", -1)]
    assert read(write_parquet(tmp_path / "q.parquet", rows)) == EXPECTED
    floats = [{**row, "relevance": float(row["relevance"])} for row in rows]
    assert read(write_parquet(tmp_path / "f.parquet", floats)) == EXPECTED
    numbers = [judgement(1, 2, 1)]
    assert read(write_parquet(tmp_path / "n.parquet", numbers)) == {"1": {"2": 1}}


def test_a_folder_of_files_is_one_set_of_judgements(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    (tmp_path / "b.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t-1\n")
    assert read(tmp_path) == EXPECTED


def test_a_split_column_can_be_filtered_on(tmp_path: Path) -> None:
    rows = [judgement("q1", "d1", 1, split="test"), judgement("q2", "d2", 1, split="train")]
    file = write_parquet(tmp_path / "q.parquet", rows)
    assert read(file, filter=[("split", "==", "test")]) == {"q1": {"d1": 1}}
    with pytest.raises(InputError, match="no judgements"):
        read(file, filter=[("split", "==", "dev")])


def test_a_filter_on_a_text_file_is_refused_not_ignored(tmp_path: Path) -> None:
    with pytest.raises((InputError, ConfigError), match="filter"):
        read(tmp_path / "q.tsv", BEIR, filter=[("split", "==", "test")])


def test_identifiers_with_blanks_survive_between_tabs(tmp_path: Path) -> None:
    """Read as white-space separated, this would be query 'what', document 'd1'."""
    assert read(tmp_path / "q.tsv", "what is\td1\t1\n") == {"what is": {"d1": 1}}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("q1\td1\t2\nq1\td2\n", 2),
        ("q1\td1\t2\n\nq1\td2\tgood\n", 3),
        ("q1 0 d1 2\nq1 0 d2 1.5\n", 2),
        ("q1 0 d1 2\nq1 0 d2 1 extra\n", 2),
        ("q1 0 d1 2\nq1 0 d2 ²\n", 2),
    ],
)
def test_a_damaged_line_is_named_with_its_number(tmp_path: Path, text: str, number: int) -> None:
    with pytest.raises(InputError, match=rf"q\.tsv line {number}\b"):
        read(tmp_path / "q.tsv", text)


@pytest.mark.parametrize(("format", "text"), [("beir", TREC), ("trec", BEIR)])
def test_a_format_that_was_asked_for_is_insisted_on(tmp_path: Path, format: str, text: str) -> None:
    with pytest.raises(InputError, match="line 1 is neither"):
        read(tmp_path / "q.txt", text, format=format)


def test_trec_files_have_no_heading_so_a_damaged_first_line_is_damage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1"):
        read(tmp_path / "q.qrels", "q1 0 d1 relevant\nq2 0 d1 1\n", format="trec")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_bytes(b"q1\td\xff\t1\n")
    with pytest.raises(InputError, match=r"q\.tsv line 1 is not UTF-8"):
        read(tmp_path / "q.tsv")


def test_a_contradiction_is_refused_and_a_repetition_is_not(tmp_path: Path) -> None:
    assert read(tmp_path / "q.tsv", BEIR + BEIR) == EXPECTED
    with pytest.raises(InputError, match=r"line 4 judges document d1 for query q1 as 1, .* as 2"):
        read(tmp_path / "q.tsv", f"{BEIR}q1\td1\t1\n")
    rows = [judgement("q1", "d1", 2), judgement("q1", "d1", 1)]
    with pytest.raises(InputError, match="document d1 for query q1 as 1, earlier as 2"):
        read(write_parquet(tmp_path / "q.parquet", rows))


@pytest.mark.parametrize(
    "row",
    [judgement(None, "d", 1), judgement("q", None, 1), judgement("q", "d", None)],
)
def test_a_judgement_with_an_empty_field_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    rows = [judgement("q0", "d0", 1), row]
    with pytest.raises(InputError, match=r"q\.parquet has a judgement with an empty field"):
        read(write_parquet(tmp_path / "q.parquet", rows))


@pytest.mark.parametrize("grade", [1.5, float("nan"), float("inf"), "good", "2.5"])
def test_a_grade_that_is_no_integer_is_refused_as_such(tmp_path: Path, grade: Any) -> None:
    file = write_parquet(tmp_path / "q.parquet", [judgement("q", "d", grade)])
    with pytest.raises(InputError, match=r"q\.parquet") as error:
        read(file)
    assert "earlier" not in str(error.value)
    assert str(grade) in str(error.value)


@pytest.mark.parametrize("text", ["", "\n\n", "query-id\tcorpus-id\tscore\n"])
def test_no_judgements_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="holds no judgements"):
        read(tmp_path / "q.tsv", text)


def test_a_query_of_several_ids_has_the_judgements_of_all_of_them() -> None:
    qrels = {"q1": {"d1": 1, "d2": 2}, "q2": {"d2": 0, "d3": -1}, "q3": {"d3": -2}}
    assert merge_grades(qrels, ["q1", "q2", "q3", "q9"]) == {"d1": 1, "d2": 2, "d3": -1}
    assert merge_grades(qrels, ["q3", "q2", "q1"]) == {"d1": 1, "d2": 2, "d3": -1}
    assert merge_grades(qrels, ["q9"]) is None
    assert qrels["q1"] == {"d1": 1, "d2": 2}
