"""TREC runs: read in the order of trec_eval, and an export comes back as the ranking it was."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.data.trec import Ranking, read_run
from rerank_batch.errors import InputError
from rerank_batch.runs.export.rankings import export_run
from rerank_batch.schema import SYSTEMS
from tests.support.helpers import finished_run, result_row


def read(path: Path, text: str | bytes) -> dict[str, Ranking]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_run(path)


def run_of(*hits: tuple[str, str, Any]) -> str:
    return "".join(f"{query} Q0 {document} 0 {score} tag\n" for query, document, score in hits)


def test_documents_come_by_score_whatever_their_lines_and_ranks(tmp_path: Path) -> None:
    text = "q2 Q0 a 1 -1 t\nq1 Q0 low 1 0.5 t\nq2\tQ0\tb\t2\t3e-1\tt\r\n\nq1 Q0 high 2 +12. t\n"
    expected = {"q2": [("b", 0.3), ("a", -1.0)], "q1": [("high", 12.0), ("low", 0.5)]}
    assert read(tmp_path / "run.txt", text) == expected
    assert read(tmp_path / "run.trec.gz", gzip.compress(text.encode())) == expected


def test_equal_scores_come_by_document_the_last_first(tmp_path: Path) -> None:
    """d9 goes before d10, é (two bytes in UTF-8) before z."""
    ids = ["d10", "z", "d9", "é", "D9"]
    (ranking,) = read(tmp_path / "run", run_of(*(("q", name, 1) for name in ids))).values()
    assert [name for name, _ in ranking] == ["é", "z", "d9", "d10", "D9"]


def test_scores_are_equal_where_float32_is(tmp_path: Path) -> None:
    text = run_of(("q", "a", 1.00000002), ("q", "b", 1.00000001), ("q", "c", 1.0000002))
    (ranking,) = read(tmp_path / "run", text).values()
    assert ranking == [("c", 1.0000002), ("b", 1.00000001), ("a", 1.00000002)]


SCORES = st.sampled_from([0.0, 1.0, -1.0, 16777216.0, 16777217.0, 0.1, 0.10000000001, 1e-30])
RANKED = st.dictionaries(st.sampled_from(["a", "b", "B", "d9", "d10", "é", "z", "zz"]), SCORES)


@given(RANKED.filter(len))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_trec_eval(tmp_path_factory: Any, scores: dict[str, float]) -> None:
    """Of one relevant document, trec_eval's reciprocal rank says where it stands."""
    file = tmp_path_factory.mktemp("run") / "run"
    ranking = read(file, run_of(*(("q", name, repr(score)) for name, score in scores.items())))
    for place, (name, _) in enumerate(ranking["q"], start=1):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {name: 1}}, {"recip_rank"})
        assert evaluator.evaluate({"q": scores})["q"]["recip_rank"] == pytest.approx(1 / place)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_export_comes_back_as_the_ranking_it_was(tmp_path: Path, system: str) -> None:
    tied = [[(f"d{n}", 0.5, float(n % 2)) for n in range(size)] for size in (2, 11, 0)]
    rows = [result_row(n, hits, [f"q{n}", f"other{n}"], top_k=5) for n, hits in enumerate(tied)]
    run = finished_run(tmp_path / "root", [rows])
    export_run(run, "trec", system, tmp_path / "run.trec")
    column = "candidates" if system == "retrieval" else "results"
    expected = {
        query_id: [hit["doc_id"] for hit in row[column]]
        for row in ds.dataset(run.results_paths()).to_table().to_pylist()
        for query_id in row["query_ids"]
        if row[column]
    }
    found = read_run(tmp_path / "run.trec")
    assert {query: [name for name, _ in ranking] for query, ranking in found.items()} == expected
    assert len(expected) == 4


@pytest.mark.parametrize(
    "line",
    [
        "q Q0 d 1 1.0",
        "q Q0 d 1 1.0 my tag",
        "q Q0 d 1 high t",
        "q Q0 d 1 nan t",
        "q Q0 d 1 inf t",
        "q Q0 d 1 1e999 t",
        "q Q0 d 1 1_0 t",
        "q Q0 d 1 ² t",
        "q 0 d 1",
        '{"query": 1}',
    ],
)
def test_a_damaged_line_is_refused_with_its_number_and_content(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"run\.txt line 3 is not 'query Q0 document") as error:
        read(tmp_path / "run.txt", f"{run_of(('q', 'a', 1))}\n{line}\n")
    assert line in str(error.value)


def test_a_document_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = run_of(("q", "a", 1), ("r", "a", 1), ("q", "a", 0.5))
    with pytest.raises(InputError, match="line 3 ranks document a for query q a second time"):
        read(tmp_path / "run", text)


@pytest.mark.parametrize("line", [b"q\xff Q0 d 1 1.0 t\n", b"q Q0 d\xff 1 1.0 t\n"])
def test_an_id_that_is_no_text_is_refused(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(InputError, match=r"run line 1 is not UTF-8"):
        read(tmp_path / "run", line)


def test_a_blank_that_is_not_ascii_is_part_of_an_id(tmp_path: Path) -> None:
    assert list(read(tmp_path / "run", run_of(("q\u00a01", "a\u2028b", 1)))) == ["q\u00a01"]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_run_without_rankings_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="holds no ranking"):
        read(tmp_path / "run", text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run: nothing at .*gone\.trec"):
        read_run(tmp_path / "gone.trec")
