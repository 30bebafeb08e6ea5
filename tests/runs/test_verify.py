"""Verifying a run: every kind of damage is named, and a whole run has none."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.errors import RunConflict
from rerank_batch.runs import Run, verify_run
from rerank_batch.storage import Root
from tests.support.helpers import (
    complete_run,
    finish,
    overwrite,
    plan_table,
    reject_row,
    reject_table,
    spec,
    write_all,
)

REJECTED = [1, 4, 5]


@pytest.fixture
def run(root: Root) -> Run:
    """Ten queries in five blocks: block 2 is all rejects, block 0 half; the plan dropped some."""
    run = Run.create(root, "run-1", spec())
    run.write_plan(plan_table(10), reject_table([reject_row(None, "empty_query", 2)]))
    run.claim()
    write_all(run, rejected=REJECTED)
    finish(run)
    return run


def change_final(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    final = run.finished()
    change(final)
    overwrite(run.root, f"runs/{run.run_id}/final.json", json.dumps(final).encode())


def key_of(run: Run, kind: str, number: int) -> str:
    return f"runs/{run.run_id}/{run.finished()[kind][number]['key']}"


def forge(run: Run, kind: str, number: int, table: pa.Table) -> None:
    """Replace a file and make final.json's size, checksum and rows fit it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    raw = sink.getvalue().to_pybytes()
    overwrite(run.root, key_of(run, kind, number), raw)
    said = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "rows": table.num_rows}
    change_final(run, lambda final: final[kind][number].update(said))


def table_of(run: Run, kind: str, number: int) -> pa.Table:
    return run.read_table(run.finished()[kind][number])


def test_a_whole_run_has_no_faults_and_is_counted(run: Run) -> None:
    ticks: list[int] = []
    found = verify_run(run, ticks.append)
    assert found.faults == []
    assert (found.queries, found.rejected) == (7, 3)
    assert found.files == 4 + 3
    assert ticks == list(range(1, found.files + 1))
    listed = [*run.finished()["results"], *run.finished()["reject_files"]]
    assert found.bytes == sum(file["bytes"] for file in listed)


def test_a_resumed_run_has_no_faults(root: Root) -> None:
    dead = Run.create(root, "run-1", spec())
    dead.claim()
    for _ in range(2):
        write_all(dead)
        dead = Run.open(root, "run-1")
        dead.claim(take_over=True)
    finish(dead)
    assert verify_run(dead).faults == []


def test_a_run_that_rejected_everything_has_no_faults(root: Root) -> None:
    found = verify_run(complete_run(root, planned=3, rejected=[0, 1, 2]))
    assert (found.faults, found.queries, found.rejected) == ([], 0, 3)


def test_only_a_complete_run_can_be_verified(root: Root) -> None:
    run = Run.create(root, "run-1", spec())
    with pytest.raises(RunConflict, match="not finished"):
        verify_run(run)
    run.abort()
    with pytest.raises(RunConflict, match="aborted"):
        verify_run(run)


def flip_a_byte(run: Run, kind: str) -> str:
    key = key_of(run, kind, 1)
    raw = bytearray(run.root.read(key) or b"")
    raw[len(raw) // 2] ^= 1
    overwrite(run.root, key, bytes(raw))
    return f"{key.removeprefix('runs/run-1/')} has another sha256"


def remove_a_file(run: Run, kind: str) -> str:
    key = key_of(run, kind, 1)
    run.root.delete([key])
    return f"{key.removeprefix('runs/run-1/')} is missing"


def leave_a_file_out(run: Run, kind: str) -> str:
    key = key_of(run, kind, 1).removeprefix("runs/run-1/")
    change_final(run, lambda final: final[kind].pop(1))
    return f"{key} is committed and not listed"


def name_a_file_outside(run: Run, kind: str) -> str:
    change_final(run, lambda final: final[kind][1].update(key="../other/x.parquet"))
    return "run run-1 lists '../other/x.parquet', outside the run"


def count_other_rows(run: Run, kind: str) -> str:
    change_final(run, lambda final: final[kind][1].update(rows=77))
    return "rows, not 77"


@pytest.mark.parametrize("kind", ["results", "reject_files"])
@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, remove_a_file, leave_a_file_out, name_a_file_outside, count_other_rows],
)
def test_a_damaged_file_is_named(run: Run, kind: str, damage: Callable[[Run, str], str]) -> None:
    fault = damage(run, kind)
    assert any(fault in each for each in verify_run(run).faults)


def test_every_flipped_byte_of_every_file_is_found(run: Run) -> None:
    for kind, number in (("results", 0), ("results", 3), ("reject_files", 0)):
        key = key_of(run, kind, number)
        raw = run.root.read(key) or b""
        for position in (0, len(raw) // 3, len(raw) - 1):
            changed = raw[:position] + bytes([raw[position] ^ 128]) + raw[position + 1 :]
            overwrite(run.root, key, changed)
            faults = verify_run(run).faults
            assert faults[0] == f"{key.removeprefix('runs/run-1/')} has another sha256"
        overwrite(run.root, key, raw)
    assert verify_run(run).faults == []


def double_in_one_file(run: Run) -> list[str]:
    table = table_of(run, "results", 1)
    forge(run, "results", 1, pa.concat_tables([table, table]))
    return ["2 planned queries are twice, first qidx 2, 3", "is not in the order of its queries"]


def double_over_files(run: Run) -> list[str]:
    forge(run, "results", 2, table_of(run, "results", 1))
    return ["2 planned queries are missing, first qidx 6, 7", "2 planned queries are twice, first"]


def double_a_reject(run: Run) -> list[str]:
    forge(run, "reject_files", 1, reject_table([reject_row(9)]))
    return ["1 planned queries are missing, first qidx 1", "1 planned queries are twice, first"]


def list_a_file_twice(run: Run) -> list[str]:
    change_final(run, lambda final: final["results"].append(final["results"][0]))
    return ["1 planned queries are twice, first qidx 0"]


def lose_a_query(run: Run) -> list[str]:
    forge(run, "results", 3, table_of(run, "results", 3).slice(1))
    return ["1 planned queries are missing, first qidx 8"]


def lose_a_reject(run: Run) -> list[str]:
    forge(run, "reject_files", 2, table_of(run, "reject_files", 2).slice(1))
    return ["1 planned queries are missing, first qidx 4"]


def go_beyond_the_plan(run: Run) -> list[str]:
    table = table_of(run, "results", 3)
    forge(run, "results", 3, table.set_column(0, table.schema.field(0), pa.array([8, 10])))
    return ["holds queries beyond the plan", "1 planned queries are missing, first qidx 9"]


def change_the_order(run: Run) -> list[str]:
    table = table_of(run, "results", 3)
    forge(run, "results", 3, table.take([1, 0]))
    return ["is not in the order of its queries"]


@pytest.mark.parametrize(
    "damage",
    [
        double_in_one_file,
        double_over_files,
        double_a_reject,
        list_a_file_twice,
        lose_a_query,
        lose_a_reject,
        go_beyond_the_plan,
        change_the_order,
    ],
)
def test_queries_that_are_there_twice_or_not_at_all_are_named(
    run: Run, damage: Callable[[Run], list[str]]
) -> None:
    """Also where somebody made the checksums in final.json fit."""
    expected = damage(run)
    faults = verify_run(run).faults
    for fault in expected:
        assert any(fault in each for each in faults), (fault, faults)


def test_a_forged_file_differs_from_its_commit(run: Run) -> None:
    forge(run, "results", 1, table_of(run, "results", 1))
    key = key_of(run, "results", 1).removeprefix("runs/run-1/")
    assert verify_run(run).faults == [f"{key} has another sha256 in its commit than in final.json"]


@pytest.mark.parametrize("body", [None, b"garbage", b"{}"])
def test_a_commit_that_is_gone_or_damaged_is_named(run: Run, body: bytes | None) -> None:
    key = f"runs/run-1/commits/{run.finished()['commits'][2]}.json"
    run.root.delete([key])
    if body:
        run.root.create_once(key, body)
    (fault,) = verify_run(run).faults
    assert key in fault


def test_commits_that_do_not_cover_the_plan_are_named(run: Run) -> None:
    change_final(run, lambda final: final["commits"].pop(2))
    assert "run run-1: queries 4 to 5 are missing" in verify_run(run).faults


@pytest.mark.parametrize(
    ("totals", "fault"),
    [
        ({"queries": 8}, "final.json counts 8 queries, the files hold 7"),
        ({"queries": 0}, "final.json counts 0 queries, the files hold 7"),
        (
            {"rejects": {"bad_score": 3, "empty_query": 1}},
            "final.json counts 4 rejects, the files hold 5",
        ),
        ({"rejects": {}}, "final.json counts 0 rejects, the files hold 5"),
    ],
)
def test_totals_that_are_not_the_sums_are_named(
    run: Run, totals: dict[str, Any], fault: str
) -> None:
    change_final(run, lambda final: final.update(totals))
    assert verify_run(run).faults == [fault]
