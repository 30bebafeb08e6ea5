"""Who drives a run, and whether that driver lives: seen from threads and real processes."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from rerank_batch.errors import RunConflict, StorageError
from rerank_batch.runs import Owner, Run
from rerank_batch.runs.epochs import read_epoch
from rerank_batch.runs.lease import living_owner
from rerank_batch.storage import Root
from tests.support.helpers import overwrite, spec

KEY = "runs/run-1/lease.json"
ELSEWHERE = Owner("elsewhere", 1, 0.0, "elsewhere/boot/pid")
LONG, SHORT = 20.0, 0.4  # seconds of a lease: never waited for, and waited for


def driven(root: Root, owner: Owner | None = None) -> Run:
    run = Run.create(root, "run-1", spec())
    run.owner = owner or run.owner
    run.claim()
    return run


def watch(run: Run, seconds: float, note: Callable[[str], None] = lambda text: None) -> Any:
    """Who another driver sees, and how long it had to look."""
    began = time.monotonic()
    owner = read_epoch(run.root, "run-1", run.epoch).owner
    return living_owner(run.root, KEY, run.epoch, owner, seconds, note), time.monotonic() - began


_DRIVER = """
import sys, time
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
run = Run.open(open_root(sys.argv[1]), "run-1")
run.claim()
with run.lease(float(sys.argv[2])):
    print("driving", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(root: Root, seconds: float = SHORT) -> Iterator[subprocess.Popen[str]]:
    """A driver of its own; it gives the run back when its input is closed."""
    command = [sys.executable, "-c", _DRIVER, root.uri, str(seconds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "driving\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("owner", [None, ELSEWHERE], ids=["this machine", "another machine"])
def test_a_driver_that_renews_its_lease_lives(root: Root, owner: Owner | None) -> None:
    run = driven(root, owner)
    told: list[str] = []
    with run.lease(SHORT):
        found, _ = watch(run, LONG, told.append)
    assert found == run.owner
    assert told == [
        f"the run belongs to {run.owner}; watching up to 20 s whether that driver lives"
    ]


def test_a_run_that_was_given_back_is_free_at_once(root: Root) -> None:
    run = driven(root)
    with run.lease(LONG):
        pass
    found, waited = watch(run, LONG)
    assert found is None
    assert waited < LONG / 4
    assert Run.open(root, "run-1").claim(lease_seconds=LONG) == 2


def test_a_lease_that_is_given_back_while_somebody_watches_frees_the_run(root: Root) -> None:
    run = driven(root, ELSEWHERE)
    with run.lease(LONG):
        asked = threading.Event()
        answers: list[Any] = []
        watcher = threading.Thread(
            target=lambda: answers.append(watch(run, 8.0, lambda text: asked.set()))
        )
        watcher.start()
        assert asked.wait(10)
    watcher.join()
    ((found, waited),) = answers
    assert found is None
    assert waited < 6


def test_a_driver_elsewhere_that_never_renews_is_dead_after_the_lease(root: Root) -> None:
    run = driven(root, ELSEWHERE)
    found, waited = watch(run, SHORT)
    assert found is None
    assert waited >= SHORT
    lease = {"epoch": 1, "owner": vars(ELSEWHERE), "beat": 5, "released": False}
    overwrite(root, KEY, json.dumps(lease).encode())
    found, waited = watch(run, SHORT)
    assert found is None
    assert waited >= SHORT
    assert Run.open(root, "run-1").claim(lease_seconds=SHORT) == 2


def test_a_living_process_is_seen_and_a_killed_one_is_dead_at_once(root: Root) -> None:
    Run.create(root, "run-1", spec())
    run = Run.open(root, "run-1")
    with another_process(root) as process:
        run.epoch = 1
        found, _ = watch(run, LONG)
        assert found is not None
        assert found.pid == process.pid
        with pytest.raises(RunConflict, match=f"run-1 is owned by .*pid {process.pid}.*alive"):
            Run.open(root, "run-1").claim(lease_seconds=LONG)
        process.kill()
        found, waited = watch(run, LONG)  # nobody has waited for it: a zombie is dead as well
        process.wait()
        assert (found, waited < LONG / 4) == (None, True)
        found, waited = watch(run, LONG)
        assert (found, waited < LONG / 4) == (None, True)
        assert Run.open(root, "run-1").claim(lease_seconds=LONG) == 2


def test_a_driver_that_dies_before_its_first_lease_is_dead_at_once(root: Root) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    run = driven(root, replace(Owner.me(), pid=gone.pid))
    found, waited = watch(run, LONG)
    assert (found, waited < LONG / 4) == (None, True)


def test_a_pid_that_went_to_another_process_is_not_the_driver(root: Root) -> None:
    me = Owner.me()
    assert not me.is_dead()
    run = driven(root, replace(me, started=me.started - 3600))
    found, waited = watch(run, LONG)
    assert (found, waited < LONG / 4) == (None, True)


def test_the_lease_of_an_earlier_epoch_says_nothing_of_this_one(root: Root) -> None:
    old = driven(root)
    with old.lease(LONG):
        pass
    new = Run.open(root, "run-1")
    new.owner = ELSEWHERE
    new.claim(lease_seconds=LONG)
    found, waited = watch(new, SHORT)
    assert found is None
    assert waited >= SHORT, "the released lease of epoch 1 was taken for that of epoch 2"


def test_a_run_is_taken_from_a_living_driver_only_when_asked_for(root: Root) -> None:
    run = driven(root, ELSEWHERE)
    told = threading.Event()
    with run.lease(SHORT, on_lost=told.set) as lease:
        with pytest.raises(RunConflict, match=r"is owned by elsewhere \(pid 1\).*--take-over"):
            Run.open(root, "run-1").claim(lease_seconds=LONG)
        assert len(root.sizes("runs/run-1/epochs/")) == 1
        heir = Run.open(root, "run-1")
        assert heir.claim(take_over=True) == 2
        assert told.wait(10), "the driver learns it before its heir has any lease, or never"
        assert lease.lost
        with heir.lease(SHORT) as own:
            time.sleep(SHORT)
            assert not own.lost
            found, _ = watch(heir, LONG)
            assert found == heir.owner
    after = json.loads(root.read(KEY) or b"")
    assert (after["epoch"], after["released"]) == (2, True), "the old driver wrote over the new one"
    assert heir.last_owner() == heir.owner


def test_a_driver_that_ends_gives_its_run_back(root: Root) -> None:
    Run.create(root, "run-1", spec())
    with another_process(root, LONG) as process:
        assert process.stdin
        process.stdin.close()
        assert process.wait(20) == 0
    lease = json.loads(root.read(KEY) or b"")
    assert (lease["epoch"], lease["released"]) == (1, True)


@pytest.mark.parametrize("key", ["epoch", "owner", "released"])
def test_a_lease_that_lacks_something_is_named(root: Root, key: str) -> None:
    run = driven(root, ELSEWHERE)
    lease = {"epoch": 1, "owner": vars(ELSEWHERE), "beat": 5, "released": False}
    del lease[key]
    overwrite(root, KEY, json.dumps(lease).encode())
    with pytest.raises(StorageError, match=rf"lease\.json is damaged.*{key}"):
        watch(run, SHORT)


@pytest.mark.parametrize("owner", [None, 7, "text", ["text"], {}, {**vars(ELSEWHERE), "pid": "x"}])
def test_a_lease_that_names_no_owner_is_damaged(root: Root, owner: Any) -> None:
    run = driven(root, ELSEWHERE)
    lease = {"epoch": 1, "owner": owner, "beat": 5, "released": False}
    overwrite(root, KEY, json.dumps(lease).encode())
    with pytest.raises(StorageError, match=r"lease\.json"):
        watch(run, SHORT)


@pytest.mark.parametrize("body", [b"{}", b"garbage", b"[]", b'{"epoch": "x"}', b'{"epoch": null}'])
def test_a_driver_goes_on_when_somebody_damages_its_lease(root: Root, body: bytes) -> None:
    """Its results are kept by the epoch; a lease is no reason to lose the work."""
    run = driven(root)
    with run.lease(SHORT) as lease:
        overwrite(root, KEY, body)
        time.sleep(SHORT)
        assert not lease.lost
    assert root.read(KEY) == body, "damage was taken for absence"
