"""A log of three files with three schemas, and a summary that tells what was done with them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.__main__ import app
from rerank_batch.errors import InputError
from tests.conftest import run_json


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three nights of a log, judgements and a takedown list whose ids are written otherwise."""
    folder = tmp_path_factory.mktemp("three")
    # The first file has ids and texts alone; an empty column of no type stands in for weights.
    write(
        folder / "log/1.parquet",
        query_id=["007", "8"],
        query=["alpha river", "stone"],
        count=pa.nulls(2),
    )
    write(
        folder / "log/2.parquet",
        query_id=pa.array(["7", "9"], pa.large_string()),
        query=pa.array(["beta", "gamma stone"]).dictionary_encode(),
        count=pa.array([3, 4], pa.int64()),
    )
    write(
        folder / "log/3.parquet",
        query=["delta"],
        query_id=["10"],
        count=[2.5],
        ts=pa.array([1767225600], pa.int64()),
    )
    ids = ["007", "Q8", "Q9", "Q10"]
    judged = {"query-id": ids, "corpus-id": ["d001", "D002", "D003", "D004"], "score": [1.0] * 4}
    write(folder / "qrels.parquet", **judged)
    (folder / "gone.txt").write_text("D001\nD002\nd003\n", "utf-8")
    settings = (
        f"queries.path={folder}/log",
        f"qrels.path={folder}/qrels.parquet",
        f"retrieval.exclude.path={folder}/gone.txt",
        "retrieval.depth=5",
        f"root={folder}/runs",
    )
    return [part for each in settings for part in ("--set", each)]


def kinds(remarks: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return sorted((each["section"], each["kind"], each["count"]) for each in remarks)


KINDS = [
    ("qrels", "ids_match_nothing", 3),  # documents
    ("qrels", "ids_match_nothing", 3),  # queries
    ("queries", "column_in_some_files", 1),  # count
    ("queries", "column_in_some_files", 2),  # ts
    ("queries", "default_column_left_alone", 5),  # ts, of all rows
    ("retrieval.exclude", "ids_match_nothing", 2),
]


def test_a_run_over_three_schemas_tells_what_it_did(
    built_config: Path, overrides: list[str]
) -> None:
    done = run_json("rerank", built_config, "--run-id", "three", *overrides)
    assert (done["queries"], done["log_rows"], done["rejects"]) == (5, 5, {})
    assert done["weight"] == 1 + 1 + 3 + 4 + 2.5
    assert done["judged"] == 1, "007 is not 7"
    assert kinds(done["remarks"]) == KINDS
    final = json.loads((Path(done["root"]) / "runs/three/final.json").read_text("utf-8"))
    assert final["remarks"] == done["remarks"]


def test_a_dry_run_shows_a_remark_a_line_and_the_files(
    built_config: Path, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["rerank", str(built_config), "--dry-run", *overrides]
    CliRunner().invoke(app, [*command, "--json"])
    summary = json.loads(capfd.readouterr().out)
    assert kinds(summary["remarks"]) == KINDS
    assert summary["files_read"] == {"queries": {"parquet": 3}, "qrels": {"parquet": 1}}
    shown = " ".join(CliRunner().invoke(app, command).stdout.split())
    assert "files queries from 3 Parquet files, qrels from 1 Parquet file" in shown
    assert "retrieval.exclude: 2 of 3 ids of the list are not in the corpus" in shown
    assert "'D001' is 'd001'" in shown


def test_the_index_names_its_files_and_a_folder_of_two_kinds_is_refused(
    built_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    CliRunner().invoke(app, ["build-index", str(built_config), "--json"])
    summary = json.loads(capfd.readouterr().out)
    assert summary["files_read"] == {"corpus": {"parquet": 1}}
    assert summary["remarks"] == []
    write(tmp_path / "a.parquet", doc_id=["a"], text=["x"])
    (tmp_path / "b.jsonl").write_text('{"_id": "b", "text": "x"}\n', "utf-8")
    path = ["--set", f"corpus.path={tmp_path}", "--set", f"index.path={tmp_path}/index"]
    told = CliRunner().invoke(app, ["build-index", str(built_config), *path])
    assert told.exit_code == InputError.exit_code
    assert "1 jsonl file and 1 Parquet file" in " ".join(told.output.split())
