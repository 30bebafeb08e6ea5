"""A run for its readers: the same rows in every form, whatever happens beside it."""

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from rerank_batch import schema
from rerank_batch.errors import RunConflict, StorageError
from rerank_batch.runs import Run, find_garbage, list_runs, remove_garbage
from rerank_batch.storage import Root
from rerank_batch.workflows.open_results import Results, open_results
from tests.support.helpers import MEASURES, complete_run, overwrite, spec


def rows(results: Results) -> list[dict[str, Any]]:
    return results.arrow().to_table().to_pylist()


def test_every_form_has_the_rows_that_the_run_counted(root: Root) -> None:
    complete_run(root, rejected=[2, 7], publish=True)
    results = open_results(root.uri, "nightly")
    assert (results.run_id, len(results.files)) == ("run-1", 5)
    table = results.arrow().to_table()
    assert table.schema.equals(schema.results(MEASURES))
    assert table.num_rows == results.final["queries"] == 8
    assert table.column("qidx").to_pylist() == [0, 1, 3, 4, 5, 6, 8, 9]
    frame = results.polars().collect()
    assert frame.equals(pl.from_arrow(table))
    asked = results.polars().filter(pl.col("qidx") > 6).select("query_id").collect()
    assert asked["query_id"].to_list() == ["q008", "q009"]
    rejects = results.rejects()
    assert rejects.schema.equals(schema.REJECTS)
    assert rejects.column("qidx").to_pylist() == [2, 7]
    assert sum(rejects.column("rows").to_pylist()) == sum(results.final["rejects"].values())


def test_files_that_no_run_lists_are_not_read(root: Root) -> None:
    run = complete_run(root, planned=2, publish=True)
    stray = run.results_paths()[0].rpartition("/")[2].replace("-", "_")
    body = root.read(f"runs/run-1/{run.finished()['results'][0]['key']}") or b""
    root.create_once(f"runs/run-1/data/{stray}", body)
    assert len(rows(open_results(root.uri, "nightly"))) == 2


def test_an_open_run_stays_the_same_while_newer_ones_land_and_older_ones_go(root: Root) -> None:
    complete_run(root, "old", score=1.0, created="2026-01-01T00:00:00", publish=True)
    complete_run(root, "mine", score=2.0, created="2026-01-02T00:00:00", publish=True)
    mine = open_results(root.uri, "nightly")
    before, frame = rows(mine), mine.polars()
    complete_run(root, "new", score=3.0, created="2026-01-03T00:00:00", publish=True)
    remove_garbage(root, find_garbage(root, keep=2))
    assert list_runs(root) == ["mine", "new"]
    assert root.sizes("runs/old/") == {}
    assert rows(mine) == before == frame.collect().to_arrow().cast(mine.arrow().schema).to_pylist()
    assert {row["results"][0]["score"] for row in before} == {2.0}
    assert open_results(root.uri, "nightly").run_id == "new"
    assert rows(open_results(root.uri, "nightly", "mine")) == before


def test_only_finished_runs_can_be_opened(root: Root) -> None:
    with pytest.raises(RunConflict, match="'nightly' has no finished run"):
        open_results(root.uri, "nightly")
    run = Run.create(root, "run-1", spec())
    with pytest.raises(RunConflict, match="'nightly' has no finished run"):
        open_results(root.uri, "nightly")
    with pytest.raises(RunConflict, match="not finished"):
        open_results(root.uri, "nightly", "run-1")
    with pytest.raises(RunConflict, match="no run run-2"):
        open_results(root.uri, "nightly", "run-2")
    run.abort()
    with pytest.raises(RunConflict, match="was aborted"):
        open_results(root.uri, "nightly", "run-1")


def test_a_complete_run_that_is_not_published_is_opened_by_its_id_only(root: Root) -> None:
    complete_run(root)
    with pytest.raises(RunConflict, match=r"'nightly' has no finished run .* runs list"):
        open_results(root.uri, "nightly")
    assert len(rows(open_results(root.uri, "nightly", "run-1"))) == 10


def test_a_run_of_rejects_only_is_an_empty_table_with_the_right_columns(root: Root) -> None:
    complete_run(root, planned=3, rejected=[0, 1, 2], publish=True)
    results = open_results(root.uri, "nightly")
    assert results.files == []
    table = results.arrow().to_table()
    assert table.num_rows == results.final["queries"] == 0
    assert table.schema.equals(schema.results(MEASURES))
    frame = results.polars().collect()
    assert frame.height == 0
    assert frame.schema == pl.from_arrow(table).schema
    assert results.rejects().num_rows == 3


def test_a_run_without_rejects_has_an_empty_table_of_them(root: Root) -> None:
    complete_run(root, publish=True)
    rejects = open_results(root.uri, "nightly").rejects()
    assert rejects.equals(pa.Table.from_pylist([], schema=schema.REJECTS))


def test_a_pointer_to_a_run_that_is_gone_says_so(root: Root) -> None:
    complete_run(root, publish=True)
    root.delete(list(root.sizes("runs/")))
    with pytest.raises(RunConflict, match="no run run-1"):
        open_results(root.uri, "nightly")
    overwrite(root, "jobs/nightly/latest.json", b"garbage")
    with pytest.raises(StorageError, match=r"latest\.json is damaged"):
        open_results(root.uri, "nightly")
