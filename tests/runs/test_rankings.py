"""Exports: what other tools read is what the run says."""

import json
from pathlib import Path
from typing import Any, get_args

import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.errors import InputError, RunConflict
from rerank_batch.evaluation.comparison import compare
from rerank_batch.evaluation.judged import judged_blocks
from rerank_batch.runs import Run
from rerank_batch.runs.export.rankings import Format, export_run
from rerank_batch.schema import SYSTEMS
from tests.support.helpers import MEASURES, finished_run, result_row

BLOCKS = [
    [result_row(0, [("d1", 0.9, 0.2), ("d2", 0.8, 0.7), ("d3", 0.7, 0.7)], ["qa", "qb"], top_k=2)],
    [result_row(1, [("d9", 0.1, 0.4), ("d4", 0.1, 0.3)], ["qc"]), result_row(2, [], ["qd"])],
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished_run(tmp_path / "root", BLOCKS)


def lines(run: Run, format: Format, system: str, out: Path) -> list[str]:
    count = export_run(run, format, system, out)
    found = out.read_text(encoding="utf-8").splitlines()
    assert count == len(found)
    return found


def test_the_retrieval_run_has_full_depth_under_every_id(run: Run, tmp_path: Path) -> None:
    assert lines(run, "trec", "retrieval", tmp_path / "new" / "run.trec") == [
        "qa Q0 d1 1 -1 run-1-retrieval",
        "qa Q0 d2 2 -2 run-1-retrieval",
        "qa Q0 d3 3 -3 run-1-retrieval",
        "qb Q0 d1 1 -1 run-1-retrieval",
        "qb Q0 d2 2 -2 run-1-retrieval",
        "qb Q0 d3 3 -3 run-1-retrieval",
        "qc Q0 d4 1 -1 run-1-retrieval",
        "qc Q0 d9 2 -2 run-1-retrieval",
    ]


def test_the_reranked_run_has_the_top_k_with_ties_as_the_run_broke_them(
    run: Run, tmp_path: Path
) -> None:
    assert lines(run, "trec", "reranked", tmp_path / "run.trec") == [
        "qa Q0 d2 1 -1 run-1-reranked",
        "qa Q0 d3 2 -2 run-1-reranked",
        "qb Q0 d2 1 -1 run-1-reranked",
        "qb Q0 d3 2 -2 run-1-reranked",
        "qc Q0 d9 1 -1 run-1-reranked",
        "qc Q0 d4 2 -2 run-1-reranked",
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_evaluating_the_export_gives_the_measures_of_the_run(tmp_path: Path, system: str) -> None:
    """Scores that tie, so that whoever sorted by score again would get other values."""
    tied = [[(f"d{n}", 0.5, float(n % 2)) for n in range(size)] for size in (2, 5, 9)]
    rows = [result_row(n, hits, [f"q{n}"]) for n, hits in enumerate(tied)]
    run = finished_run(tmp_path / "root", [rows])
    qrels = {f"q{n}": {"d0": 1, "d1": 3, "d4": -1, "d7": 2, "gone": 1} for n in range(3)}
    export_run(run, "trec", system, tmp_path / "run.trec")
    measures = [ir_measures.parse_measure(name) for name in MEASURES]
    exported = list(ir_measures.read_trec_run(str(tmp_path / "run.trec")))
    comparison = compare(judged_blocks(run.results_paths(), qrels), SYSTEMS, [], MEASURES)
    expected = {name: comparison.by_query(system, name) for name in MEASURES}
    found = list(ir_measures.iter_calc(measures, qrels, exported))
    assert len(found) == len(qrels) * len(MEASURES)
    for metric in found:
        value = expected[str(metric.measure)][metric.query_id]
        assert metric.value == pytest.approx(value, abs=1e-9)


def test_jsonl_is_a_line_per_query_with_the_scores(run: Run, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in lines(run, "jsonl", "retrieval", tmp_path / "r.jsonl")]
    assert [row["query_ids"] for row in rows] == [["qa", "qb"], ["qc"], ["qd"]]
    assert [hit["doc_id"] for hit in rows[0]["ranking"]] == ["d1", "d2", "d3"]
    assert rows[0]["query"] == "query number 0"
    assert rows[2]["ranking"] == []
    reranked = lines(run, "jsonl", "reranked", tmp_path / "r.jsonl")
    best = json.loads(reranked[0])["ranking"][0]
    assert best == {"doc_id": "d2", "rank": 1, "score": pytest.approx(0.7)}


def test_pairs_are_a_row_per_query_and_document(run: Run, tmp_path: Path) -> None:
    assert export_run(run, "pairs", "reranked", tmp_path / "p.parquet") == 4
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.field("score").type == pa.float32()
    found = [(r["query_id"], r["doc_id"], r["rank"]) for r in table.to_pylist()]
    assert found == [("qa", "d2", 1), ("qa", "d3", 2), ("qc", "d9", 1), ("qc", "d4", 2)]
    assert export_run(run, "pairs", "retrieval", tmp_path / "p.parquet") == 5


def test_pairs_of_many_queries_share_row_groups(tmp_path: Path) -> None:
    """A row group per query makes a file that is mostly footer."""
    rows = [result_row(n, [("d1", 1.0, 1.0)]) for n in range(50)]
    export_run(finished_run(tmp_path / "root", [rows]), "pairs", "reranked", tmp_path / "p.parquet")
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 1


BAD_IDS: list[dict[str, Any]] = [
    {"query_ids": ["q 1"], "candidates": [("d1", 1.0, 1.0)]},
    {"query_ids": ["q1", "q\u00a02"], "candidates": [("d1", 1.0, 1.0)]},
    {"query_ids": ["q1"], "candidates": [("d\t1", 1.0, 1.0)]},
    {"query_ids": ["q1"], "candidates": [("d1\n", 1.0, 1.0)]},
    {"query_ids": ["q1"], "candidates": [("", 1.0, 1.0)]},
]


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_ids_that_a_trec_file_cannot_hold_are_refused(
    tmp_path: Path, system: str, bad: dict[str, Any]
) -> None:
    rows = [result_row(0, [("d1", 1.0, 1.0)], ["fine"]), result_row(1, **bad)]
    run = finished_run(tmp_path / "root", [rows])
    with pytest.raises(InputError, match="jsonl or pairs"):
        export_run(run, "trec", system, tmp_path / "run.trec")
    assert export_run(run, "jsonl", system, tmp_path / "r.jsonl") == 2


def test_a_refused_export_leaves_no_half_file(tmp_path: Path) -> None:
    rows = [result_row(0, [("d1", 1.0, 1.0)], ["fine"]), result_row(1, **BAD_IDS[0])]
    run = finished_run(tmp_path / "root", [rows])
    with pytest.raises(InputError):
        export_run(run, "trec", "reranked", tmp_path / "run.trec")
    assert not (tmp_path / "run.trec").exists()


@pytest.mark.parametrize("format", get_args(Format))
def test_an_unfinished_run_is_not_exported(tmp_path: Path, run: Run, format: Format) -> None:
    other = Run.create(run.root, "run-2", run.spec)
    with pytest.raises(RunConflict, match="not finished"):
        export_run(other, format, "reranked", tmp_path / "out")


def test_exporting_an_unfinished_run_keeps_an_earlier_export(tmp_path: Path, run: Run) -> None:
    (tmp_path / "out").write_text("the export of yesterday")
    other = Run.create(run.root, "run-2", run.spec)
    with pytest.raises(RunConflict):
        export_run(other, "jsonl", "reranked", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "the export of yesterday"
