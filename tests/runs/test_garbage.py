"""What may be removed, and everything that may not."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.runs import (
    Run,
    find_garbage,
    latest_run,
    list_runs,
    publish_run,
    remove_garbage,
    verify_run,
)
from rerank_batch.runs import garbage as garbage_module
from rerank_batch.storage import Root
from rerank_batch.storage.s3 import client, split_uri
from tests.support.helpers import (
    complete_run,
    content,
    everything_under,
    finish,
    plan_table,
    reject_table,
    spec,
    write_all,
    write_block,
)


def day(number: int) -> str:
    return f"2026-01-{number:02d}T00:00:00"


def completed(root: Root, number: int, publish: bool = True, **what: Any) -> Run:
    """A complete run of a day, with a stray file that a worker left which wrote a block again."""
    run = complete_run(root, f"run-{number}", planned=4, created=day(number), rejected=[1], **what)
    for folder in ("data", "rejects", "scores"):
        root.create_once(f"runs/run-{number}/{folder}/stray.parquet", b"12345")
    if publish:
        publish_run(run)
    return run


def strays(number: int) -> list[str]:
    return [f"runs/run-{number}/{folder}/stray.parquet" for folder in ("data", "rejects", "scores")]


def found(root: Root, **options: Any) -> dict[str, list[str]]:
    return {each.run_id: sorted(each.keys) for each in find_garbage(root, **options)}


def test_finding_removes_nothing_and_removing_removes_what_was_found(root: Root) -> None:
    old, latest = completed(root, 1), completed(root, 2)
    before = everything_under(root)
    garbage = find_garbage(root)
    assert everything_under(root) == before
    assert [(each.run_id, each.keys, each.bytes) for each in garbage] == [("run-1", strays(1), 15)]
    assert garbage[0].why == "not listed by its final.json"
    contents = [content(run) for run in (old, latest)]
    remove_garbage(root, garbage)
    assert everything_under(root).items() == before.items() - {(k, b"12345") for k in strays(1)}
    assert [content(run) for run in (old, latest)] == contents
    assert [verify_run(run).faults for run in (old, latest)] == [[], []]
    assert find_garbage(root) == []


def test_commits_of_parts_and_of_dead_epochs_go_with_their_files(root: Root) -> None:
    dead = Run.create(root, "run-1", spec(planned=4, created=day(1)))
    dead.claim()
    unlisted = write_block(dead, 0, 1)  # a part of a block: done again
    run = Run.open(root, "run-1")
    run.claim(take_over=True)
    write_all(run)
    finish(run)
    assert publish_run(run)
    completed(root, 2)
    assert unlisted.results is not None
    expected = [unlisted.name.key, unlisted.results.key]
    assert found(root) == {"run-1": [f"runs/run-1/{key}" for key in sorted(expected)]}
    remove_garbage(root, find_garbage(root))
    assert verify_run(run).faults == []


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_the_latest_run_is_never_touched(root: Root, keep: int | None) -> None:
    run = completed(root, 1)
    assert find_garbage(root, keep=keep) == []
    completed(root, 2)
    assert latest_run(root, "nightly").run_id == "run-2"
    before = everything_under(root, "runs/run-2/")
    remove_garbage(root, find_garbage(root, keep=keep))
    assert everything_under(root, "runs/run-2/") == before
    assert (run.run_id in list_runs(root)) == (keep is None)


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_a_run_that_is_about_to_be_the_latest_is_never_touched(
    root: Root, keep: int | None
) -> None:
    """Finished and not published yet: its driver is between the two, or somebody wants it so."""
    completed(root, 1)
    completed(root, 2, publish=False)
    completed(root, 3, publish=False)
    before = everything_under(root)
    assert find_garbage(root, keep=keep) == []
    assert everything_under(root) == before


def test_without_a_latest_run_no_complete_run_is_touched(root: Root) -> None:
    completed(root, 1, publish=False)
    assert find_garbage(root, keep=0) == []


@pytest.mark.parametrize("keep", [None, 0])
def test_unfinished_runs_are_never_touched(root: Root, keep: int | None) -> None:
    """What they left behind is what a resume needs; also where nobody drives them any more."""
    for number in (1, 3):
        run = Run.create(root, f"run-{number}", spec(planned=4, created=day(number)))
        run.write_plan(plan_table(4), reject_table())
        run.claim()
        write_block(run, 0, 2)
        root.create_once(f"runs/run-{number}/data/stray.parquet", b"12345")
    completed(root, 2)
    Run.create(root, "run-4", spec(created=day(4)))
    before = everything_under(root)
    assert find_garbage(root, keep=keep) == []
    assert everything_under(root) == before


def test_the_newest_runs_of_each_job_are_kept_and_the_others_go_without_a_trace(
    root: Root, tmp_path: Path
) -> None:
    for number in (1, 2, 3, 4):
        completed(root, number)
    completed(root, 5, job="weekly")
    completed(root, 6, job="weekly")
    kept = {n: everything_under(root, f"runs/run-{n}/") for n in (4, 6)}
    garbage = find_garbage(root, keep=2)
    assert [(each.run_id, each.why) for each in garbage] == [
        ("run-1", "older than the runs to keep"),
        ("run-2", "older than the runs to keep"),
        ("run-3", "not listed by its final.json"),
        ("run-5", "not listed by its final.json"),
    ]
    for each in garbage[:2]:
        assert set(each.keys[-2:]) == {f"runs/{each.run_id}/{n}.json" for n in ("final", "spec")}
        assert sorted(each.keys) == list(root.sizes(f"runs/{each.run_id}/"))
        assert each.bytes == sum(root.sizes(f"runs/{each.run_id}/").values())
    remove_garbage(root, garbage)
    assert list_runs(root) == ["run-3", "run-4", "run-5", "run-6"]
    assert root.sizes("runs/run-1/") == root.sizes("runs/run-2/") == {}
    assert not (tmp_path / "root" / "runs" / "run-1").exists()
    assert {n: everything_under(root, f"runs/run-{n}/") for n in (4, 6)} == kept
    assert [verify_run(Run.open(root, f"run-{n}")).faults for n in (3, 4, 5, 6)] == [[]] * 4
    assert latest_run(root, "nightly").run_id == "run-4"
    assert find_garbage(root, keep=2) == []


def test_a_lease_leaves_nothing_behind_where_its_run_is_removed(root: Root) -> None:
    run = Run.create(root, "run-1", spec(planned=2, created=day(1)))
    run.claim()
    with run.lease(20):
        write_all(run)
        finish(run)
    publish_run(run)
    completed(root, 2)
    remove_garbage(root, find_garbage(root, keep=1))
    assert root.sizes("runs/run-1/") == {}
    if local := root.local("runs/run-1"):
        assert not local.exists()


def test_only_the_job_that_is_asked_for_is_cleaned(root: Root) -> None:
    for number, job in enumerate(("nightly", "nightly", "weekly", "weekly"), start=1):
        completed(root, number, job=job)
    assert list(found(root)) == ["run-1", "run-3"]
    assert list(found(root, job="weekly")) == ["run-3"]
    assert list(found(root, job="weekly", keep=1)) == ["run-3"]
    assert found(root, job="yearly") == {}


def test_the_data_of_an_aborted_run_goes_and_its_end_stays_told(root: Root) -> None:
    run = Run.create(root, "run-1", spec(planned=4, created=day(9)))
    run.write_plan(plan_table(4), reject_table())
    run.claim()
    commit = write_block(run, 0, 2, rejected=[1])
    run.abort()
    (garbage,) = find_garbage(root)
    assert garbage.why == "data of an aborted run"
    keys = [commit.name.key, *(file.key for file in commit.files)]
    assert sorted(garbage.keys) == [f"runs/run-1/{key}" for key in sorted(keys)]
    remove_garbage(root, [garbage])
    assert Run.open(root, "run-1").state() == "aborted"
    assert list_runs(root) == ["run-1"]
    assert find_garbage(root) == []


def test_an_aborted_run_takes_no_place_among_the_runs_to_keep(root: Root) -> None:
    for number in (1, 2, 4):
        completed(root, number)
    Run.create(root, "run-3", spec(planned=4, created=day(3))).abort()
    whole = [e.run_id for e in find_garbage(root, keep=2) if e.why.startswith("older")]
    assert whole == ["run-1"]


def test_uploads_that_broke_off_are_dropped_when_they_are_a_day_old(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uploads(folder: str) -> list[str]:
        return root.stale_uploads(folder, -1)

    run = completed(root, 1)
    completed(root, 2)
    remove_garbage(root, find_garbage(root))
    for name in ("runs/run-1/data/half.parquet", "runs/run-2/data/half.parquet"):
        if staged := root.local(name):
            staged = staged.with_name(f".{staged.name}.0123")
            staged.write_bytes(b"half")
        else:
            bucket, prefix = split_uri(root.uri)
            client().create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{name}")
    assert find_garbage(root) == []  # whoever writes them may still be at it
    if root.local(""):
        for staged in Path(root.uri).rglob(".half*"):
            day_ago = time.time() - garbage_module.STALE_UPLOAD_SECONDS
            os.utime(staged, (day_ago - 5, day_ago - 5))
    else:
        monkeypatch.setattr(garbage_module, "STALE_UPLOAD_SECONDS", -1)
    (garbage,) = find_garbage(root)
    assert (garbage.run_id, garbage.keys) == ("run-1", [])
    assert len(garbage.uploads) == len(uploads("runs/run-1/")) == 1
    remove_garbage(root, [garbage])
    assert uploads("runs/run-1/") == []
    assert len(uploads("runs/run-2/")) == 1
    assert verify_run(run).faults == []


def test_what_is_gone_already_is_no_error(root: Root) -> None:
    """Two collectors at once, or one that died half-way."""
    completed(root, 1)
    completed(root, 2)
    garbage = find_garbage(root, keep=1)
    remove_garbage(root, garbage)
    remove_garbage(root, garbage)
    assert list_runs(root) == ["run-2"]
