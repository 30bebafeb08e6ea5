"""The run protocol on a folder: exactly once, whole or not at all, damage is never absence."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch import schema
from rerank_batch.errors import ConfigError, RunConflict, StorageError
from rerank_batch.run import (
    Run,
    as_ranges,
    block_bounds,
    check_coverage,
    content_digest,
    describe_differences,
    latest_run,
    list_runs,
    total,
)
from rerank_batch.storage import Folder
from tests.helpers import MEASURES, finished_run, plan_row, result_row, result_table, spec

NO_REJECTS = schema.REJECTS.empty_table()


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "root"))


def started(root: Folder, run_id: str = "run-1", **what: Any) -> Run:
    run = Run.create(root, run_id, spec(**what))
    run.claim()
    return run


def rows(qidx: range, score: float = 1.0) -> Any:
    return result_table([result_row(n, [("d1", 0.5, score)]) for n in qidx])


def write(run: Run, start: int, stop: int, score: float = 1.0, **sums: float) -> Any:
    block = range(start, stop)
    return run.writer().write(block, rows(block, score), NO_REJECTS, sums, {"score": 0.5})


def everything_under(root: Folder) -> dict[str, bytes | None]:
    return {key: root.read(key) for key in root.list("")}


# --- creating --------------------------------------------------------------------------------


def test_an_id_that_is_taken_is_refused_with_the_difference_and_nothing_is_written(
    root: Folder,
) -> None:
    Run.create(root, "run-1", spec(reranker="abc", index={"kind": "Flat", "shards": 4}))
    before = everything_under(root)
    other = spec(reranker="abc", index={"kind": "HNSW", "shards": 4})
    other["made_of"]["depth"] = 20
    with pytest.raises(RunConflict) as error:
        Run.create(root, "run-1", other)
    message = str(error.value)
    assert "run-1 exists" in message
    assert "not finished" in message
    assert "depth was 50, is 20" in message
    assert 'index.kind was "Flat", is "HNSW"' in message
    assert "shards" not in message
    assert "reranker" not in message
    assert everything_under(root) == before


def test_an_id_that_is_taken_by_the_same_inputs_says_so(root: Folder, tmp_path: Path) -> None:
    finished_run(tmp_path / "root", [[result_row(0, [])]])
    with pytest.raises(RunConflict, match=r"\(finished, with the same inputs\)"):
        Run.create(root, "run-1", spec())


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "Run", "-x", "a" * 65, "a b", ".x", "x\n"])
def test_what_is_no_run_id_reaches_no_storage(root: Folder, tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a run id"):
        Run.create(root, run_id, spec())
    with pytest.raises(ConfigError, match="is not a run id"):
        Run.open(root, run_id)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_run_is_answered_with_the_newest_ones(root: Folder) -> None:
    with pytest.raises(RunConflict, match="newest runs: none"):
        Run.open(root, "run-9")
    for number in (3, 1, 2):
        Run.create(root, f"run-{number}", spec(created=f"2026-01-0{4 - number}T00:00:00"))
    assert list_runs(root) == ["run-3", "run-2", "run-1"]
    with pytest.raises(RunConflict, match="newest runs: run-3, run-2, run-1"):
        Run.open(root, "run-9")


def test_two_drivers_never_own_one_epoch(root: Folder) -> None:
    one = Run.create(root, "run-1", spec())
    two = Run.open(root, "run-1")
    assert (one.claim(), two.claim()) == (1, 2)
    assert one.nonce != two.nonce


def test_the_plan_is_one_file_per_block_that_reads_back(root: Folder) -> None:
    run = Run.create(root, "run-1", spec())
    queries = schema.PLAN.empty_table().from_pylist(
        [plan_row(n) for n in range(7)], schema=schema.PLAN
    )
    run.write_plan(queries, NO_REJECTS, block_rows=3)
    blocks = [pq.read_table(run.plan_path(number)) for number in range(2)]
    assert [block.num_rows for block in blocks] == [3, 4]
    assert [row for block in blocks for row in block.to_pylist()] == queries.to_pylist()
    assert run.rejected_ids() == set()


# --- writing and finishing -------------------------------------------------------------------


def test_what_was_written_is_the_run_in_the_order_of_its_queries(root: Folder) -> None:
    run = started(root)
    write(run, 3, 6, pairs=0.1)
    rejects = NO_REJECTS.from_pylist(
        [{"query_id": "q007", "reason": "bad_score", "rows": 1}], schema=schema.REJECTS
    )
    run.writer().write(range(6, 8), rows(range(6, 7)), rejects, {"pairs": 0.2}, {"score": 1.5})
    write(run, 0, 3, pairs=0.3)
    with pytest.raises(RunConflict, match="not finished"):
        run.results_paths()
    final = run.finish(8, {"queries": 7})
    assert final["state"] == "complete"
    assert final["queries"] == 7
    assert run.final() == Run.open(root, "run-1").final()
    found = [n for path in run.results_paths() for n in pq.read_table(path)["qidx"].to_pylist()]
    assert found == [0, 1, 2, 3, 4, 5, 6]
    assert run.rejected_ids() == {"q007"}
    commits = run.commits()
    assert total(commits, "sums") == {"pairs": 0.6}
    assert total(commits, "seconds") == {"score": 2.5}
    assert total(commits, "reject_reasons") == {"bad_score": 1}


def test_a_block_that_is_written_twice_counts_once_and_the_first_wins(root: Folder) -> None:
    run = started(root)
    first = write(run, 0, 3, score=1.0, pairs=3.0)
    second = write(run, 0, 3, score=2.0, pairs=3.0)
    assert second == first
    assert run.commits() == [first]
    assert len(root.list("runs/run-1/data/")) == 2
    run.finish(3, {})
    (path,) = run.results_paths()
    scores = [hit["score"] for row in pq.read_table(path)["results"].to_pylist() for hit in row]
    assert scores == [1.0, 1.0, 1.0]


def test_a_block_of_rejects_only_has_no_data_file(root: Folder) -> None:
    run = started(root)
    rejects = NO_REJECTS.from_pylist(
        [{"query_id": "q000", "reason": "bad_score", "rows": 1}], schema=schema.REJECTS
    )
    commit = run.writer().write([0], schema.results(MEASURES).empty_table(), rejects, {}, {})
    assert commit.results is None
    run.finish(1, {})
    assert run.results_paths() == []
    assert run.rejected_ids() == {"q000"}


@pytest.mark.parametrize(
    ("blocks", "complaint"),
    [
        ([], "queries 0 to 9 are missing"),
        ([(0, 4), (6, 10)], "queries 4 to 5 are missing"),
        ([(2, 10)], "queries 0 to 1 are missing"),
        ([(0, 9)], "queries 9 to 9 are missing"),
        ([(0, 6), (4, 10)], "queries from 4 are there twice"),
        ([(0, 10), (3, 4)], "queries from 3 are there twice"),
    ],
)
def test_a_run_with_missing_or_doubled_queries_cannot_finish(
    root: Folder, blocks: list[tuple[int, int]], complaint: str
) -> None:
    run = started(root)
    for start, stop in blocks:
        write(run, start, stop)
    with pytest.raises(RunConflict, match=complaint):
        run.finish(10, {})
    assert run.final() is None


def test_queries_beyond_the_plan_are_not_called_missing() -> None:
    with pytest.raises(RunConflict) as error:
        check_coverage([[(0, 5)]], 3, "run-1")
    assert "missing" not in str(error.value)


def test_a_run_finishes_once(root: Folder) -> None:
    run = started(root)
    write(run, 0, 2)
    run.finish(2, {"queries": 2})
    with pytest.raises(RunConflict, match="finished or aborted by another"):
        Run(root, "run-1", run.spec, epoch=1).finish(2, {"queries": 99})
    assert run.final() is not None
    assert (run.final() or {})["queries"] == 2


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_a_data_file_that_changed_after_its_commit_stops_the_finish(
    root: Folder, damage: str
) -> None:
    run = started(root)
    commit = write(run, 0, 2)
    write(run, 2, 4)
    path = Path(root.path(f"runs/run-1/{commit.results.key}"))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with pytest.raises(StorageError, match=commit.results.key):
        run.finish(4, {})
    assert run.final() is None


def test_commits_of_another_epoch_do_not_count(root: Folder) -> None:
    zombie = started(root)
    owner = Run.open(root, "run-1")
    owner.claim()
    write(zombie, 0, 2, score=9.0)
    write(owner, 0, 2, score=1.0)
    assert [commit.epoch for commit in owner.commits()] == [2]
    assert len(owner.finish(2, {})["results"]) == 1


# --- reading ---------------------------------------------------------------------------------


def test_stray_data_files_are_no_part_of_a_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path, [[result_row(0, [])], [result_row(1, [])]])
    listed = run.results_paths()
    (Path(listed[0]).parent / "0001-000000000000-stray.parquet").write_bytes(b"half a file")
    assert Run.open(run.root, "run-1").results_paths() == listed
    assert len(listed) == 2


def test_a_file_list_that_leaves_its_run_is_refused(tmp_path: Path) -> None:
    finished_run(tmp_path, [[result_row(0, [])]], run_id="other")
    theirs = Path(Run.open(Folder(str(tmp_path)), "other").results_paths()[0]).name
    run = finished_run(tmp_path, [[result_row(0, [])]])
    file = tmp_path / "runs" / "run-1" / "final.json"
    mine = Path(run.results_paths()[0]).name
    file.write_text(file.read_text().replace(f"data/{mine}", f"../other/data/{theirs}"))
    with pytest.raises(StorageError, match="other"):
        run.results_paths()


def test_latest_only_moves_forward(root: Folder) -> None:
    with pytest.raises(RunConflict, match="'nightly' has no finished run"):
        latest_run(root, "nightly")
    old, new, other = (
        Run.create(root, "old", spec(created="2026-01-01T00:00:00")),
        Run.create(root, "new", spec(created="2026-01-02T00:00:00")),
        Run.create(root, "other", spec(job="weekly", created="2026-01-03T00:00:00")),
    )
    assert old.publish()
    assert latest_run(root, "nightly").run_id == "old"
    assert new.publish()
    assert not old.publish()
    assert not new.publish()
    assert other.publish()
    assert latest_run(root, "nightly").run_id == "new"
    assert (old.is_latest(), new.is_latest(), other.is_latest()) == (False, True, True)


DAMAGE = [b"", b'{"run_id": "ru', b"[]", b"null", b"\xff\xfe", b"{}"]


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_commit_is_an_error_not_a_missing_block(root: Folder, body: bytes) -> None:
    run = started(root)
    commit = write(run, 0, 2)
    Path(root.path(f"runs/run-1/{commit.key}")).write_bytes(body)
    with pytest.raises(StorageError, match=r"commits/0001-0+\.json is damaged"):
        run.finish(2, {})
    with pytest.raises(StorageError, match=r"commits/0001-0+\.json is damaged"):
        write(run, 0, 2)


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_final_is_an_error_not_an_unfinished_run(tmp_path: Path, body: bytes) -> None:
    run = finished_run(tmp_path, [[result_row(0, [])]])
    (tmp_path / "runs" / "run-1" / "final.json").write_bytes(body)
    with pytest.raises(StorageError, match=r"final\.json is damaged"):
        run.results_paths()


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_latest_is_an_error_and_is_not_overwritten(tmp_path: Path, body: bytes) -> None:
    run = finished_run(tmp_path, [[result_row(0, [])]])
    run.publish()
    file = tmp_path / "jobs" / "nightly" / "latest.json"
    file.write_bytes(body)
    with pytest.raises(StorageError, match=r"latest\.json is damaged"):
        latest_run(run.root, "nightly")
    with pytest.raises(StorageError, match=r"latest\.json is damaged"):
        run.publish()
    with pytest.raises(StorageError, match=r"latest\.json is damaged"):
        run.is_latest()
    assert file.read_bytes() == body


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_spec_is_an_error_not_an_unknown_run(root: Folder, body: bytes) -> None:
    Run.create(root, "run-1", spec())
    Path(root.path("runs/run-1/spec.json")).write_bytes(body)
    with pytest.raises(StorageError, match=r"spec\.json is damaged"):
        Run.open(root, "run-1")
    with pytest.raises(StorageError, match=r"spec\.json is damaged"):
        list_runs(root)


# --- blocks and ranges -----------------------------------------------------------------------


@given(st.integers(1, 100_000), st.integers(1, 5000))
def test_blocks_cover_all_rows_and_none_is_small_enough_to_be_joined(rows: int, size: int) -> None:
    bounds = block_bounds(rows, size)
    check_coverage([[block] for block in bounds], rows, "run-1")
    sizes = [stop - start for start, stop in bounds]
    assert set(sizes[:-1]) <= {size}
    assert size <= sizes[-1] < 2 * size or sizes == [rows]


@given(st.lists(st.integers(0, 60), unique=True))
def test_ranges_hold_the_numbers_given_in_as_few_pieces_as_can_be(numbers: list[int]) -> None:
    ranges = as_ranges(numbers)
    assert [n for start, stop in ranges for n in range(start, stop)] == sorted(numbers)
    assert all(a[1] < b[0] for a, b in pairwise(ranges))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_coverage_holds_exactly_for_each_number_once(numbers: list[int]) -> None:
    covered = [as_ranges(numbers[:4]), as_ranges(numbers[4:])]
    if sorted(numbers) == list(range(len(numbers))):
        check_coverage(covered, len(numbers), "run-1")
    else:
        with pytest.raises(RunConflict):
            check_coverage(covered, len(numbers), "run-1")


def test_differences_are_told_field_by_field() -> None:
    old = {"a": {"b": 1, "c": [1]}, "d": None, "same": (1, 2)}
    new = {"a": {"b": 2, "c": [1]}, "e": "x", "same": [1, 2]}
    assert describe_differences(old, new) == 'a.b was 1, is 2; e was null, is "x"'
    assert describe_differences(old, old) == ""


def test_a_difference_at_the_end_of_a_long_value_can_be_seen() -> None:
    """Checksums of many files, of which only the last differs."""
    same = ["0" * 64]
    told = describe_differences({"queries": [*same, "1" * 64]}, {"queries": [*same, "2" * 64]})
    before, after = told.removeprefix("queries was ").split(", is ")
    assert before != after


def test_runs_with_equal_rows_have_equal_digests(tmp_path: Path) -> None:
    blocks = [[result_row(n, [("d1", 1.0, float(n))])] for n in range(3)]
    one = finished_run(tmp_path / "one", blocks).results_paths()
    two = finished_run(tmp_path / "two", [blocks[0], blocks[1] + blocks[2]]).results_paths()
    assert content_digest(one) == content_digest(two)
    blocks[2][0]["weight"] = 2.0
    three = finished_run(tmp_path / "three", blocks).results_paths()
    assert content_digest(one) != content_digest(three)
