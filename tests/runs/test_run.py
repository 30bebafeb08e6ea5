"""The run protocol: exactly once, whole or not at all, damage is never absence."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.errors import (
    ConfigError,
    InputsChanged,
    RerankBatchError,
    RunConflict,
    StorageError,
)
from rerank_batch.runs import (
    CommitName,
    Run,
    is_latest,
    latest_run,
    list_runs,
    publish_parquet,
    publish_run,
    read_block,
    refuse_if_taken_over,
    total,
)
from rerank_batch.runs.decisions import keep_decision
from rerank_batch.runs.objects import Commit
from rerank_batch.storage import DataFile, Published, Root, new_nonce, sha256_file
from tests.support.helpers import (
    complete_run,
    content,
    everything_under,
    finish,
    overwrite,
    plan_table,
    reject_row,
    reject_table,
    result_row,
    result_table,
    spec,
    write_all,
    write_block,
)


def started(root: Root, run_id: str = "run-1", **what: Any) -> Run:
    run = Run.create(root, run_id, spec(**what))
    run.claim()
    return run


def taken_over(root: Root, run_id: str = "run-1") -> Run:
    """The next driver of a run."""
    run = Run.open(root, run_id)
    run.claim(take_over=True)
    return run


def late_commit(run: Run, start: int, stop: int, score: float = 9.0) -> Commit:
    """A commit whose file is in storage, so that nothing but its epoch keeps it out of the run."""
    name = CommitName(start, stop, run.epoch)
    rows = result_table([result_row(n, [("d1", 0.5, score)]) for n in range(start, stop)])
    key = f"data/{name}-{new_nonce()}.parquet"
    stored = publish_parquet(run.root, f"runs/{run.run_id}/", key, rows)
    return Commit(name, new_nonce(), stored, None, {}, {}, {}, {}, [])


def force(run: Run, start: int, stop: int, score: float = 9.0) -> CommitName:
    """Commit as a worker does that looked at the epoch before it was too late."""
    commit = late_commit(run, start, stop, score)
    assert run.root.create_once(f"runs/{run.run_id}/{commit.name.key}", commit.to_json())
    return commit.name


def scores(run: Run) -> dict[int, float]:
    """Query -> the score of its only document, from the files that the run lists."""
    found = [
        (row["qidx"], row["results"][0]["score"])
        for file in run.finished()["results"]
        for row in run.read_table(file).to_pylist()
    ]
    assert len(found) == len(dict(found)), "a query is there twice"
    return dict(found)


# --- creating --------------------------------------------------------------------------------


def test_an_id_that_is_taken_is_refused_with_the_difference_and_nothing_is_written(
    root: Root,
) -> None:
    Run.create(root, "run-1", spec(reranker="abc", index={"kind": "Flat", "shards": 4}))
    before = everything_under(root)
    other = spec(reranker="abc", index={"kind": "HNSW", "shards": 4}, depth=20)
    with pytest.raises(InputsChanged) as error:
        Run.create(root, "run-1", other)
    message = str(error.value)
    assert "run-1" in message
    assert "nothing was written" in message
    assert "depth was 50, is 20" in message
    assert 'index.kind was "Flat", is "HNSW"' in message
    assert "shards" not in message
    assert "reranker" not in message
    assert everything_under(root) == before


def test_an_id_that_is_taken_by_the_same_inputs_says_so(root: Root) -> None:
    run = started(root)
    before = everything_under(root)
    with pytest.raises(RunConflict, match=r"\(unfinished and owned by .+, with the same inputs\)"):
        Run.create(root, "run-1", spec())
    assert everything_under(root) == before
    write_all(run)
    finish(run)
    with pytest.raises(RunConflict, match=r"run-1 exists .*\(complete, with the same inputs\)"):
        Run.create(root, "run-1", spec())


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "Run", "-x", "a" * 65, "a b", ".x", "x\n"])
def test_what_is_no_run_id_reaches_no_storage(root: Root, tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a run id"):
        Run.create(root, run_id, spec())
    with pytest.raises(ConfigError, match="is not a run id"):
        Run.open(root, run_id)
    assert root.sizes("") == {}
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_run_is_answered_with_the_newest_ones(root: Root) -> None:
    with pytest.raises(RunConflict, match="newest runs: none"):
        Run.open(root, "run-9")
    for number in (3, 1, 2):
        Run.create(root, f"run-{number}", spec(created=f"2026-01-0{4 - number}T00:00:00"))
    assert list_runs(root) == ["run-3", "run-2", "run-1"]
    with pytest.raises(RunConflict, match="newest runs: run-3, run-2, run-1"):
        Run.open(root, "run-9")


def test_a_run_of_another_version_is_not_guessed_at(root: Root) -> None:
    Run.create(root, "run-1", spec())
    key = "runs/run-1/spec.json"
    old = json.loads(root.read(key) or b"") | {"protocol": 1}
    overwrite(root, key, json.dumps(old).encode())
    with pytest.raises(RunConflict, match="follows protocol 1"):
        Run.open(root, "run-1")


# --- the plan --------------------------------------------------------------------------------


def test_the_plan_is_one_file_per_block_that_reads_back(root: Root) -> None:
    run = Run.create(root, "run-1", spec(planned=7, block_rows=3))
    queries = plan_table(7)
    run.write_plan(queries, reject_table())
    blocks = [read_block(root, "run-1", number) for number in range(2)]
    assert [block.num_rows for block in blocks] == [3, 4]
    assert [row for block in blocks for row in block.to_pylist()] == queries.to_pylist()
    assert run.read_block(1).equals(blocks[1])
    assert sorted(root.sizes("runs/run-1/rejects/")) == []


def test_writing_the_plan_again_changes_no_byte_and_fills_in_what_is_missing(root: Root) -> None:
    run = Run.create(root, "run-1", spec(planned=7, block_rows=3))
    rejects = reject_table([reject_row(None, "empty_query", 2)])
    run.write_plan(plan_table(7), rejects)
    before = everything_under(root)
    run.write_plan(plan_table(7), rejects)
    assert everything_under(root) == before
    missing = "runs/run-1/plan/00000001.parquet"
    stays = "runs/run-1/plan/00000000.parquet"
    root.delete([missing, "runs/run-1/rejects/plan.parquet"])
    overwrite(root, stays, b"somebody may be reading this")
    run.write_plan(plan_table(7), rejects)
    assert everything_under(root) == before | {stays: b"somebody may be reading this"}


@pytest.mark.parametrize("damage", ["removed", "cut", "another table"])
def test_a_damaged_block_of_the_plan_is_named(root: Root, tmp_path: Path, damage: str) -> None:
    run = Run.create(root, "run-1", spec())
    run.write_plan(plan_table(10), reject_table())
    key = "runs/run-1/plan/00000003.parquet"
    raw = root.read(key) or b""
    if damage == "removed":
        root.delete([key])
    elif damage == "cut":
        overwrite(root, key, raw[:-3])
    else:
        publish_parquet(root, "", key, reject_table([reject_row(1)]))
    kind = RerankBatchError if damage == "another table" else StorageError
    with pytest.raises(kind, match="plan/00000003"):
        run.read_block(3)


def test_a_flipped_bit_never_gives_another_plan(tmp_path: Path) -> None:
    root = Memory()
    run = Run.create(root, "run-1", spec(planned=4, block_rows=4))
    run.write_plan(plan_table(4), reject_table())
    key = "runs/run-1/plan/00000000.parquet"
    raw = root.objects[key]
    caught = 0
    for position in range(0, len(raw), 5):
        root.objects[key] = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        try:
            assert run.read_block(0).equals(plan_table(4)), position
        except RerankBatchError as error:
            assert "plan/00000000" in str(error)
            caught += 1
    assert caught > len(raw) // 5 / 2


# --- writing and finishing -------------------------------------------------------------------


def test_what_was_written_is_the_run_in_the_order_of_its_queries(root: Root) -> None:
    run = started(root, planned=8, block_rows=2)
    run.write_plan(plan_table(8), reject_table([reject_row(None, "empty_query", 3)]))
    write_block(run, 3, 6, sums={"pairs": 0.1})
    write_block(run, 6, 8, rejected=[7], sums={"pairs": 0.2})
    write_block(run, 0, 3, sums={"pairs": 0.3})
    with pytest.raises(RunConflict, match="not finished"):
        run.results_paths()
    final = run.finish({"queries": 7})
    assert final["state"] == run.state() == "complete"
    assert final["queries"] == 7
    assert run.final() == Run.open(root, "run-1").final() == final
    assert list(scores(run)) == [0, 1, 2, 3, 4, 5, 6]
    assert len(run.results_paths()) == 3
    rejects = {(row["qidx"], row["reason"], row["rows"]) for row in run.rejects().to_pylist()}
    assert rejects == {(None, "empty_query", 3), (7, "bad_score", 1)}
    commits = run.commits()
    assert total(commits, "sums") == {"pairs": 0.6}
    assert total(commits, "seconds") == {"score": 1.5}
    assert total(commits, "reject_reasons") == {"bad_score": 1}


def test_a_block_that_is_written_twice_counts_once_and_the_first_wins(root: Root) -> None:
    run = started(root, planned=3)
    first = write_block(run, 0, 3, score=1.0, sums={"pairs": 3.0})
    second = write_block(run, 0, 3, score=2.0, sums={"pairs": 3.0})
    assert second == first
    assert run.commits() == [first]
    assert len(root.sizes("runs/run-1/data/")) == 2
    run.finish({})
    assert scores(run) == {0: 1.0, 1: 1.0, 2: 1.0}


def test_a_block_of_rejects_only_has_no_data_file(root: Root) -> None:
    run = started(root, planned=1)
    commit = write_block(run, 0, 1, rejected=[0])
    assert commit.results is None
    run.finish({})
    assert run.results_paths() == []
    assert run.rejects().column("query_id").to_pylist() == ["q000"]


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
    root: Root, blocks: list[tuple[int, int]], complaint: str
) -> None:
    run = started(root)
    for start, stop in blocks:
        write_block(run, start, stop)
    with pytest.raises(RunConflict, match=complaint):
        run.finish({})
    assert run.final() is None


def test_a_run_finishes_once(root: Root) -> None:
    run = started(root, planned=2)
    write_block(run, 0, 2)
    run.finish({"queries": 2})
    with pytest.raises(RunConflict, match="finished or aborted by another"):
        Run(root, "run-1", run.spec, epoch=1).finish({"queries": 99})
    assert (run.final() or {})["queries"] == 2


@pytest.mark.parametrize("damage", ["truncated", "removed"])
@pytest.mark.parametrize("kind", ["results", "rejects"])
def test_a_data_file_that_changed_after_its_commit_stops_the_finish(
    root: Root, damage: str, kind: str
) -> None:
    run = started(root, planned=4)
    file = getattr(write_block(run, 0, 2, rejected=[1]), kind)
    write_block(run, 2, 4)
    key = f"runs/run-1/{file.key}"
    if damage == "truncated":
        overwrite(root, key, (root.read(key) or b"")[:-1])
    else:
        root.delete([key])
    with pytest.raises(StorageError, match=file.key):
        run.finish({})
    assert run.final() is None


# --- resuming, taking over -------------------------------------------------------------------


def test_a_resume_accepts_the_whole_blocks_that_are_done_and_does_the_others(root: Root) -> None:
    dead = started(root)
    for start in (0, 4, 6):
        write_block(dead, start, start + 2, score=1.0)
    run = Run.open(root, "run-1")
    assert run.claim(take_over=True) == 2
    assert len(run.done()) == 6
    assert run.blocks_to_do(run.done()) == [1, 4]
    assert [name.epoch for name in run.counting()] == [1, 1, 1]
    write_all(run, score=2.0)
    final = finish(run)
    assert scores(run) == dict.fromkeys((0, 1, 4, 5, 6, 7), 1.0) | dict.fromkeys((2, 3, 8, 9), 2.0)
    assert [name.split("-")[0] for name in final["commits"]] == [
        f"{epoch:06d}" for epoch in (1, 2, 1, 1, 2)
    ]
    assert final["queries"] == 10


def test_what_was_accepted_once_is_accepted_through_every_later_epoch(root: Root) -> None:
    run = started(root, planned=6)
    for number, (start, stop) in enumerate(run.blocks()):
        write_block(run, start, stop, score=float(number))
        run = taken_over(root)
    assert run.epoch == 4
    assert run.blocks_to_do(run.done()) == []
    finish(run)
    assert scores(run) == {0: 0.0, 1: 0.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0}


def test_the_writer_of_a_dead_epoch_is_refused(root: Root) -> None:
    zombie = started(root)
    late = zombie.writer()
    owner = taken_over(root)
    refuse_if_taken_over(root, "run-1", owner.epoch)
    with pytest.raises(RunConflict, match="was taken over by another driver"):
        refuse_if_taken_over(root, "run-1", zombie.epoch)
    rows = result_table([result_row(n, []) for n in range(2)])
    with pytest.raises(RunConflict, match="was taken over by another driver"):
        late.write(0, 2, rows, reject_table(), {}, {}, {})
    assert root.sizes("runs/run-1/commits/") == {}
    with pytest.raises(RunConflict, match="was taken over by another driver"):
        write_all(zombie)


def test_a_late_commit_of_a_dead_epoch_never_counts(root: Root) -> None:
    zombie = started(root, planned=4)
    write_block(zombie, 0, 2, score=1.0)
    owner = taken_over(root)
    late = force(zombie, 2, 4)
    assert late not in owner.counting()
    assert owner.blocks_to_do(owner.done()) == [1]
    heir = taken_over(root)
    assert late not in heir.counting(), "an heir took what its predecessor did not accept"
    assert heir.blocks_to_do(heir.done()) == [1]
    write_all(heir, score=2.0)
    final = finish(heir)
    assert str(late) not in final["commits"]
    assert scores(heir) == {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0}


def test_a_late_commit_does_not_double_what_is_done_already(root: Root) -> None:
    zombie = started(root, planned=4)
    owner = taken_over(root)
    write_all(owner, score=1.0)
    force(zombie, 0, 2)
    finish(owner)
    assert scores(owner) == dict.fromkeys(range(4), 1.0)


def test_commits_of_parts_of_blocks_are_done_again(root: Root) -> None:
    dead = started(root, planned=6, block_rows=3)
    force(dead, 0, 2)  # less than a block
    force(dead, 2, 4)  # parts of two
    write_block(dead, 3, 6, score=1.0)
    run = taken_over(root)
    assert run.counting() == [CommitName(3, 6, 1)]
    assert run.blocks_to_do(run.done()) == [0]
    write_all(run, score=2.0)
    finish(run)
    assert scores(run) == dict.fromkeys(range(3), 2.0) | dict.fromkeys(range(3, 6), 1.0)


def test_a_driver_that_was_taken_over_cannot_finish(root: Root) -> None:
    old = started(root, planned=2)
    write_all(old)
    new = taken_over(root)
    with pytest.raises(RunConflict, match="was taken over"):
        finish(old)
    assert new.final() is None
    finish(new)
    assert scores(new) == {0: 1.0, 1: 1.0}


def test_commits_of_another_epoch_do_not_count(root: Root) -> None:
    zombie = started(root, planned=2)
    owner = taken_over(root)
    force(zombie, 0, 2, score=9.0)
    write_block(owner, 0, 2, score=1.0)
    assert [commit.name.epoch for commit in owner.commits()] == [2]
    assert len(owner.finish({})["results"]) == 1
    assert scores(owner) == {0: 1.0, 1: 1.0}


@pytest.mark.parametrize("take_over", [False, True])
def test_of_drivers_that_claim_at_once_exactly_one_wins(
    root: Root, monkeypatch: pytest.MonkeyPatch, take_over: bool
) -> None:
    """All have read the same newest epoch when the first of them creates the next."""
    drivers = [Run.create(root, "run-1", spec()), *(Run.open(root, "run-1") for _ in range(3))]
    ready = threading.Barrier(len(drivers), timeout=30)
    kind = type(root)
    create_once = kind.create_once

    def wait_for_the_others(self: Any, key: str, data: bytes) -> bool:
        ready.wait()
        return create_once(self, key, data)

    def claim(run: Run) -> int | str:
        try:
            return run.claim(take_over)
        except RunConflict as error:
            return str(error)

    with monkeypatch.context() as patch, ThreadPoolExecutor(len(drivers)) as pool:
        patch.setattr(kind, "create_once", wait_for_the_others)
        answers = list(pool.map(claim, drivers))
    refused = "run run-1 is owned by another driver, which took it in this moment"
    assert sorted(map(str, answers)) == ["1", refused, refused, refused]
    assert sorted(run.epoch for run in drivers) == [0, 0, 0, 1]
    assert len(root.sizes("runs/run-1/epochs/")) == 1


# --- aborting --------------------------------------------------------------------------------


def test_an_aborted_run_is_closed_for_good(root: Root) -> None:
    driver = started(root, planned=4)
    write_block(driver, 0, 2)
    Run.open(root, "run-1").abort()
    assert driver.state() == Run.open(root, "run-1").state() == "aborted"
    with pytest.raises(RunConflict, match="was taken over"):
        write_block(driver, 2, 4)
    with pytest.raises(RunConflict):
        finish(driver)
    heir = taken_over(root)
    write_all(heir)
    with pytest.raises(RunConflict, match="finished or aborted by another driver"):
        finish(heir)
    with pytest.raises(RunConflict, match="run-1 is aborted already"):
        Run.open(root, "run-1").abort()
    assert driver.state() == "aborted"
    with pytest.raises(RunConflict, match="was aborted: it holds no results"):
        driver.results_paths()


def test_a_complete_run_cannot_be_aborted(root: Root) -> None:
    run = complete_run(root)
    before = everything_under(root)
    with pytest.raises(RunConflict, match="run-1 is complete already"):
        Run.open(root, "run-1").abort()
    assert everything_under(root) == before
    assert run.state() == "complete"


def test_a_run_that_holds_nothing_is_forgotten_and_its_id_is_free(root: Root) -> None:
    run = started(root, planned=4)
    run.write_plan(plan_table(4), reject_table([reject_row(None)]))
    keep_decision(run, "mode", 1, {"runtime": "torch"})
    with run.lease(60):
        assert run.holds_nothing()
    run.forget()
    assert everything_under(root) == {}
    started(root)


@pytest.mark.parametrize("kept", ["a block", "a payment", "scores", "a takeover", "an end"])
def test_a_run_that_holds_anything_is_not_forgotten(root: Root, kept: str) -> None:
    run = started(root, planned=4)
    if kept == "a block":
        write_block(run, 0, 2)
    elif kept == "a takeover":
        run = taken_over(root)
    elif kept == "an end":
        run.abort()
    else:
        key = {"a payment": "paid/1-x.parquet", "scores": "scores/1/x.arrow"}[kept]
        assert root.create_once(f"runs/run-1/{key}", b"x")
    before = everything_under(root)
    assert not run.holds_nothing()
    run.forget()
    assert everything_under(root) == before


# --- reading ---------------------------------------------------------------------------------


def test_stray_data_files_are_no_part_of_a_run(root: Root) -> None:
    run = complete_run(root, planned=4)
    listed, rows = run.results_paths(), content(run)
    root.create_once("runs/run-1/data/000001-000000000000-stray.parquet", b"half a file")
    again = Run.open(root, "run-1")
    assert again.results_paths() == listed
    assert content(again) == rows
    assert len(listed) == 2


OUTSIDE = [
    "../other/data/x.parquet",
    "data/../../other/data/x.parquet",
    "data/..",
    "../x",
    "/etc/hostname",
    "/data/x.parquet",
    "plan/00000000.parquet",
    "data/deeper/x.parquet",
    "data",
    "",
]


@pytest.mark.parametrize("key", OUTSIDE)
@pytest.mark.parametrize("kind", ["results", "reject_files"])
def test_a_final_that_lists_a_file_outside_its_run_is_refused(
    root: Root, key: str, kind: str
) -> None:
    run = complete_run(root, rejected=[1])
    final = run.finished()
    final[kind][0]["key"] = key
    overwrite(root, "runs/run-1/final.json", json.dumps(final).encode())
    reader = run.results_paths if kind == "results" else run.rejects
    with pytest.raises(StorageError, match=r"run run-1 lists '.*', outside the run"):
        reader()


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_commit_that_lists_a_file_outside_its_run_stops_the_finish(root: Root, key: str) -> None:
    run = started(root, planned=2)
    stored = publish_parquet(root, "runs/other/", "data/x.parquet", result_table([]))
    file = DataFile(key, stored.bytes, stored.sha256, 2)
    name = CommitName(0, 2, 1)
    commit = Commit(name, new_nonce(), file, None, {}, {}, {}, {}, [])
    root.create_once(f"runs/run-1/{name.key}", commit.to_json())
    with pytest.raises(StorageError, match="outside the run"):
        run.finish({})
    assert run.final() is None


def test_latest_only_moves_forward(root: Root) -> None:
    with pytest.raises(RunConflict, match="'nightly' has no finished run"):
        latest_run(root, "nightly")
    with pytest.raises(ConfigError, match="is not a job name"):
        latest_run(root, "../nightly")
    old, new, other = (
        complete_run(root, "old", created="2026-01-01T00:00:00"),
        complete_run(root, "new", created="2026-01-02T00:00:00"),
        complete_run(root, "other", job="weekly", created="2026-01-03T00:00:00"),
    )
    assert publish_run(old)
    assert latest_run(root, "nightly").run_id == "old"
    assert publish_run(new)
    assert not publish_run(old)
    assert not publish_run(new)
    assert publish_run(other)
    assert latest_run(root, "nightly").run_id == "new"
    assert (is_latest(old), is_latest(new), is_latest(other)) == (False, True, True)


def test_runs_with_equal_rows_have_equal_content(root: Root) -> None:
    one = complete_run(root, "one", rejected=[3])
    two = complete_run(root, "two", rejected=[3], block_rows=5)
    assert len(one.results_paths()) != len(two.results_paths())
    assert content(one) == content(two)
    for name, what in {"three": {"score": 2.0}, "four": {"rejected": []}}.items():
        other = complete_run(root, name, **{"rejected": [3], **what})
        assert content(one) != content(other)


# --- damage is never absence -----------------------------------------------------------------

PARTS: list[Any] = ["without", None, 7, "text", ["text"], [7], {"text": 1}]
DAMAGE = [b"", b'{"run_id": "ru', b"[]", b"null", b"\xff\xfe", b"{}", b'"text"', b"7"]


def damaged(name: str) -> str:
    return rf"{name} is damaged"


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_commit_is_an_error_not_a_missing_block(root: Root, body: bytes) -> None:
    run = started(root, planned=2)
    key = f"runs/run-1/{write_block(run, 0, 2).name.key}"
    overwrite(root, key, body)
    with pytest.raises(StorageError, match=damaged(key)):
        run.finish({})
    with pytest.raises(StorageError, match=damaged(key)):
        write_block(run, 0, 2)
    with pytest.raises(StorageError, match=damaged(key)):
        taken_over(root).finish({})
    assert run.final() is None


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_epoch_is_an_error_not_a_run_without_a_driver(root: Root, body: bytes) -> None:
    run = started(root, planned=2)
    write_all(run)
    overwrite(root, "runs/run-1/epochs/000001.json", body)
    for take_over in (False, True):
        with pytest.raises(StorageError, match=damaged(r"epochs/000001\.json")):
            Run.open(root, "run-1").claim(take_over)
    with pytest.raises(StorageError, match=damaged(r"epochs/000001\.json")):
        run.last_owner()
    assert len(root.sizes("runs/run-1/epochs/")) == 1


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("nonce", "without"),
        *[(key, body) for key in ("owner", "accepts") for body in PARTS],
    ],
)
def test_an_epoch_with_damaged_parts_is_named(root: Root, key: str, body: Any) -> None:
    run = started(root, planned=2)
    place = "runs/run-1/epochs/000001.json"
    value = json.loads(root.read(place) or b"")
    if body == "without":
        del value[key]
    else:
        value[key] = body
    overwrite(root, place, json.dumps(value).encode())
    with pytest.raises(StorageError, match=r"epochs/000001\.json"):
        Run.open(root, "run-1").claim(take_over=key != "owner")
    assert run.final() is None
    assert len(root.sizes("runs/run-1/epochs/")) == 1


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_lease_is_an_error_not_a_dead_driver(root: Root, body: bytes) -> None:
    run = started(root)
    with run.lease(20):
        overwrite(root, "runs/run-1/lease.json", body)
        with pytest.raises(StorageError, match=damaged(r"lease\.json")):
            Run.open(root, "run-1").claim(lease_seconds=0.1)
    assert len(root.sizes("runs/run-1/epochs/")) == 1


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_final_is_an_error_not_an_unfinished_run(root: Root, body: bytes) -> None:
    run = complete_run(root)
    overwrite(root, "runs/run-1/final.json", body)
    for reader in (run.results_paths, run.final, run.state, run.rejects, run.abort):
        with pytest.raises(StorageError, match=damaged(r"final\.json")):
            reader()
    with pytest.raises(RunConflict, match="finished or aborted"):
        finish(run)


@pytest.mark.parametrize(
    "key", ["state", "run_id", "results", "reject_files", "commits", "job", "created"]
)
def test_a_final_that_lacks_something_is_damaged(root: Root, key: str) -> None:
    run = complete_run(root)
    final = run.finished()
    del final[key]
    overwrite(root, "runs/run-1/final.json", json.dumps(final).encode())
    with pytest.raises(StorageError, match=damaged(r"final\.json") + f".*{key}"):
        run.finished()


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_latest_is_an_error_and_is_not_overwritten(root: Root, body: bytes) -> None:
    run = complete_run(root, publish=True)
    overwrite(root, "jobs/nightly/latest.json", body)
    reads = (lambda: latest_run(root, "nightly"), lambda: publish_run(run), lambda: is_latest(run))
    for act in reads:
        with pytest.raises(StorageError, match=damaged(r"latest\.json")):
            act()
    assert root.read("jobs/nightly/latest.json") == body


@pytest.mark.parametrize("body", DAMAGE)
def test_a_damaged_spec_is_an_error_not_an_unknown_run(root: Root, body: bytes) -> None:
    Run.create(root, "run-1", spec())
    overwrite(root, "runs/run-1/spec.json", body)
    with pytest.raises(StorageError, match=damaged(r"spec\.json")):
        Run.open(root, "run-1")
    with pytest.raises(StorageError, match=damaged(r"spec\.json")):
        list_runs(root)
    with pytest.raises(StorageError, match=damaged(r"spec\.json")):
        Run.create(root, "run-1", spec())


# --- any order of events ---------------------------------------------------------------------


@dataclass
class Memory:
    """A root in memory. ``meanwhile`` happens just before the next conditional creation: after
    whatever its caller looked at, which is where another driver does the most harm."""

    uri: str = "memory"
    objects: dict[str, bytes] = field(default_factory=dict)
    meanwhile: Callable[[], None] | None = None
    late: set[str] = field(default_factory=set)

    def read(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def create_once(self, key: str, data: bytes) -> bool:
        then, self.meanwhile = self.meanwhile, None
        if then:
            then()
        if "/commits/" in key and key not in self.objects:
            name = CommitName.parse(key)
            if self.size(f"runs/run-1/epochs/{name.epoch + 1:06d}.json"):
                self.late.add(str(name))
        return self.objects.setdefault(key, data) is data

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def sizes(self, prefix: str) -> dict[str, int]:
        return {k: len(v) for k, v in sorted(self.objects.items()) if k.startswith(prefix)}

    def publish(self, key: str, local: Path) -> Published:
        self.objects[key] = local.read_bytes()
        return Published(len(self.objects[key]), sha256_file(local))


DRIVER = st.integers(0, 5)
STEP = st.one_of(
    st.tuples(st.just("claim")),
    st.tuples(st.just("write"), DRIVER, st.integers(0, 2)),
    st.tuples(st.just("force"), DRIVER, st.sampled_from([(0, 2), (2, 4), (4, 6), (0, 1), (1, 4)])),
    st.tuples(st.just("finish"), DRIVER),
)


class World:
    """Drivers that come, are taken over, go on all the same, and what each of them achieved."""

    def __init__(self) -> None:
        self.root = Memory()
        self.drivers = [Run.create(self.root, "run-1", spec(planned=6, block_rows=2))]
        self.drivers[0].claim(take_over=True)
        self.finals: list[dict[str, Any]] = []

    def step(self, what: str, driver: int = 0, part: Any = None) -> None:
        run = self.drivers[driver % len(self.drivers)]
        try:
            if what == "claim":
                heir = Run.open(self.root, "run-1")
                heir.claim(take_over=True)
                self.drivers.append(heir)
            elif what == "write":
                self.write(run, *run.blocks()[part])
            elif what == "force" and part not in self.given(run):
                commit = late_commit(run, *part, score=float(run.epoch))
                self.root.create_once(f"runs/run-1/{commit.name.key}", commit.to_json())
            elif what == "finish":
                self.finals.append(finish(run))
        except RunConflict:
            pass

    def given(self, run: Run) -> set[tuple[int, int]]:
        """The blocks that the driver found done when it claimed the run: it leaves those alone."""
        return {(name.start, name.stop) for name in run.counting() if name.epoch != run.epoch}

    def write(self, run: Run, start: int, stop: int) -> None:
        if (start, stop) not in self.given(run):
            write_block(run, start, stop, score=float(run.epoch))

    def steps(self, first: tuple[Any, ...], others: list[tuple[Any, ...]]) -> None:
        """``others`` happen in the middle of ``first``."""
        self.root.meanwhile = lambda: [self.step(*other) for other in others] and None
        self.step(*first)
        self.root.meanwhile = None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(STEP, st.lists(STEP, max_size=2)), max_size=9))
def test_whatever_happens_in_whatever_order_every_query_lands_once(
    history: list[tuple[tuple[Any, ...], list[tuple[Any, ...]]]],
) -> None:
    world = World()
    for first, others in history:
        world.steps(first, others)
    last = taken_over(world.root)
    if not world.finals:
        write_all(last, score=float(last.epoch))
        world.finals.append(finish(last))
    with pytest.raises(RunConflict):
        write_all(last)
        finish(last)
    (final,) = world.finals
    assert last.finished() == final
    assert sorted(scores(last)) == [0, 1, 2, 3, 4, 5]
    # What a driver committed after it had lost the run is in nobody's list but its own.
    others = {name for name in final["commits"] if CommitName.parse(name).epoch < final["epoch"]}
    assert not others & world.root.late
