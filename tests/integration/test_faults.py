"""Faults made for real, and what must come of each: what readers see, what is kept, how it ends.

The store is a real S3 server, processes die by kill -9, the full disk is a full file system. Those
that take half a minute or more are marked slow: `make test-slow` runs them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.errors import (
    ComputeError,
    ConfigError,
    InputsChanged,
    RunConflict,
    StorageError,
    TooManyRejects,
)
from rerank_batch.runs import Run, latest_run
from rerank_batch.storage import open_root
from rerank_batch.workflows.open_results import open_results
from tests.chaos.arena import ray_cluster, write_base
from tests.chaos.project import (
    HERE,
    Project,
    clean_environment,
    content,
    write_project,
)
from tests.chaos.s3_server import S3Server
from tests.support.helpers import wait_for

QUERIES = 80


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """80 queries in 20 blocks on a cluster that outlives its drivers, with a finished run."""
    folder = tmp_path_factory.mktemp("faults")
    base = write_base(folder / "base")
    inputs = folder / "project"
    config = write_project(inputs, base, str(inputs / "runs"), str(inputs), QUERIES)
    with ray_cluster(clean_environment()) as cluster:
        environment = clean_environment(RAY_ADDRESS=cluster.address)
        project = Project(config, str(inputs / "runs"), environment)
        succeed(project.run("build-index", config))
        succeed(project.run("rerank", config, "--run-id", "undisturbed"))
        yield project


@pytest.fixture(scope="module")
def reference(project) -> list[str]:
    return content(project.root, "undisturbed")


def succeed(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def fails(done: subprocess.CompletedProcess[str], kind, *said: str) -> None:
    """With the exit code of its kind, one clear message and no traceback."""
    assert done.returncode == kind.exit_code, done.stderr[-3000:]
    flat = " ".join(done.stderr.split())
    for text in said:
        assert text in flat, flat[-3000:]
    assert "Traceback" not in done.stderr
    assert "site-packages" not in done.stderr


def sabotaged(project: Project, what: str, local: bool = False) -> Project:
    """The same project broken on purpose; ``local``: on a Ray of its own, workers included."""
    extra = {"RERANK_BATCH_SABOTAGE": what, "PYTHONPATH": str(HERE / "sabotage")}
    environment = {**project.environment, **extra}
    if local:
        del environment["RAY_ADDRESS"]
    return Project(project.config, project.root, environment)


# --- drivers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        "working",
        pytest.param("final", marks=pytest.mark.slow),
        pytest.param("latest", marks=pytest.mark.slow),
    ],
)
def test_a_driver_that_is_killed_leaves_the_old_run_to_readers_and_resumes_to_the_same(
    project, reference, moment, tmp_path
):
    run_id = f"killed-{moment}"
    scheduled = ("--run-id", run_id, "--or-resume")  # what a scheduler repeats until it succeeds
    resume = scheduled if moment == "working" else ("--resume", run_id)
    before = latest_run(open_root(project.root), "chaos").run_id
    if moment == "working":
        driver = project.driver(tmp_path / "log", *scheduled)
        wait_for(lambda: open_root(project.root).sizes(f"runs/{run_id}/commits/"))
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    else:
        killer = sabotaged(project, f"die-before:{moment}")
        done = killer.run("rerank", project.config, "--run-id", run_id)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert latest_run(open_root(project.root), "chaos").run_id == before
    assert open_results(project.root, "chaos").arrow().count_rows() == QUERIES

    resumed = json.loads(succeed(project.run("rerank", project.config, *resume, "--json")).stdout)
    assert content(project.root, run_id) == reference
    assert latest_run(open_root(project.root), "chaos").run_id == run_id
    succeed(project.run("runs", "verify", project.root, run_id))
    assert resumed["queries"] == QUERIES
    if moment == "final":
        assert resumed["done_before"] == QUERIES, "all was done: nothing is scored again"
    # A resume of what is complete finds nothing to do and says so.
    again = succeed(project.run("rerank", project.config, *scheduled))
    assert "complete: nothing is left to do" in again.stderr


@pytest.mark.slow
def test_a_second_driver_is_told_who_owns_the_run_and_may_take_it_over(
    project, reference, tmp_path
):
    first = project.driver(tmp_path / "first", "--run-id", "contested")
    wait_for(lambda: open_root(project.root).sizes("runs/contested/epochs/"))
    second = project.run("rerank", project.config, "--resume", "contested")
    fails(
        second, RunConflict, f"is owned by {os.uname().nodename} (pid {first.pid})", "--take-over"
    )
    third = project.run("rerank", project.config, "--run-id", "contested")
    fails(third, RunConflict, "run contested exists", "--resume contested")
    if first.poll() is None:
        done = project.run("rerank", project.config, "--resume", "contested", "--take-over")
        codes = {done.returncode, first.wait(120)}
        assert codes <= {0, RunConflict.exit_code}, done.stderr
        assert 0 in codes
    assert content(project.root, "contested") == reference


@pytest.mark.slow
def test_two_jobs_at_once_on_one_small_cluster_both_come_to_their_end(project, reference, tmp_path):
    """Neither waits for what the other holds: there is room for one reranking actor at a time."""
    names = ("one", "other")
    drivers = [project.driver(tmp_path / name, "--run-id", name) for name in names]
    for name, driver in zip(names, drivers, strict=True):
        assert driver.wait(180) == 0, (tmp_path / name).read_text()[-3000:]
        assert content(project.root, name) == reference


def test_a_resume_with_other_settings_is_refused_field_by_field_and_writes_nothing(project):
    root = open_root(project.root)
    before = root.sizes("runs/undisturbed/")
    done = project.run(
        "rerank", project.config, "--resume", "undisturbed", "--set", "retrieval.depth=10"
    )
    fails(done, InputsChanged, "settings.retrieval.depth was 20, is 10", "nothing was written")
    assert root.sizes("runs/undisturbed/") == before


@pytest.mark.slow
def test_a_run_that_is_aborted_stops_its_driver_and_cannot_be_resumed(project, tmp_path):
    driver = project.driver(tmp_path / "log", "--run-id", "given-up")
    wait_for(lambda: open_root(project.root).sizes("runs/given-up/commits/"))
    succeed(project.run("runs", "abort", project.root, "given-up"))
    assert driver.wait(120) == RunConflict.exit_code
    assert "taken over" in (tmp_path / "log").read_text()
    fails(project.run("rerank", project.config, "--resume", "given-up"), RunConflict, "was aborted")
    succeed(project.run("runs", "gc", project.root, "--delete"))
    assert not open_root(project.root).sizes("runs/given-up/data/")


@pytest.mark.slow
def test_a_driver_that_is_told_to_end_says_how_to_go_on_and_gives_its_lease_back(
    project, reference, tmp_path
):
    """SIGTERM, as spot nodes and schedulers send it."""
    driver = project.driver(tmp_path / "log", "--run-id", "ended")
    wait_for(lambda: open_root(project.root).sizes("runs/ended/commits/"))
    driver.terminate()
    assert driver.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert "--resume ended" in said
    assert "SIGTERM received" not in said, "no stack of Ray's"
    lease = json.loads(open_root(project.root).read("runs/ended/lease.json"))
    assert lease["released"]
    succeed(project.run("rerank", project.config, "--resume", "ended"))
    assert content(project.root, "ended") == reference


# --- poison ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_poison_is_rejected_alone_and_everybody_else_gets_the_same_scores(project):
    """A query that raises, one that gives no number, and a model that runs out of memory."""
    poison = sabotaged(project, "fail-on:winter,nan-on:summer,memory:90", local=True)
    done = succeed(
        poison.run("rerank", project.config, "--run-id", "poisoned", "-v", "--json",
                   "--set", "limits.max_rejects=0.9")
    )  # fmt: skip
    summary = json.loads(done.stdout)
    run = Run.open(open_root(project.root), "poisoned")
    whole = {row["qidx"]: row for row in rows_of(project.root, "undisturbed")}
    kept = {row["qidx"]: row for row in rows_of(project.root, "poisoned")}
    rejects = run.rejects().to_pylist()
    reasons = {row["qidx"]: row["reason"] for row in rejects}
    words = {qidx: row["query"].split() for qidx, row in whole.items()}
    failing = {qidx for qidx, asked in words.items() if "winter" in asked}
    without = {qidx for qidx, asked in words.items() if "summer" in asked} - failing
    assert failing
    assert without
    assert reasons == {
        **dict.fromkeys(failing, "rerank_failed:RuntimeError"),
        **dict.fromkeys(without, "non_finite_score"),
    }
    assert kept.keys() | reasons.keys() == whole.keys()
    for qidx, row in kept.items():
        scores = [[hit["score"] for hit in rows["candidates"]] for rows in (row, whole[qidx])]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert all(row["query"] is None for row in rejects), "no texts unless asked for"
    assert any("token budget halved" in event for event in summary["events"])
    assert any("tried again after RuntimeError" in event for event in summary["events"])
    succeed(project.run("runs", "verify", project.root, "poisoned"))


@pytest.mark.slow
def test_a_run_that_goes_wrong_wholesale_is_stopped(project):
    poison = sabotaged(project, "nan-on:winter", local=True)
    done = poison.run(
        "rerank", project.config, "--run-id", "wholesale", "--set", "limits.max_rejects=2"
    )
    fails(
        done, TooManyRejects, "3 of 80 log rows are rejected", "limits.max_rejects (2)",
        "during the run non_finite_score 3", "precision: fp32",
    )  # fmt: skip
    assert Run.open(open_root(project.root), "wholesale").final() is None


@pytest.mark.slow
def test_a_batch_that_ends_its_worker_every_time_stops_with_its_queries_and_a_hint(project):
    """What the kernel's out-of-memory killer does to a worker, again and again."""
    killer = sabotaged(project, "die-on:winter", local=True)
    done = killer.run("rerank", project.config, "--run-id", "dying")
    fails(done, ComputeError, "died 3 times on the same 4 queries (k00", "compute.block_rows")
    assert "--resume dying" in done.stderr


# --- storage ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(project, tmp_path_factory):
    """The same project on a real S3 server: inputs, index and runs."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "server").mkdir()
    with S3Server(folder / "server") as server:
        server.create_bucket("chaos")
        local = project.config.parent
        for file in local.glob("*.parquet"):
            server.client().upload_file(str(file), "chaos", f"inputs/{file.name}")
        text = project.config.read_text().replace(f"{local}/", "s3://chaos/inputs/")
        text = text.replace("s3://chaos/inputs/cache", str(folder / "cache"))
        config = folder / "config.yaml"
        config.write_text(text.replace("s3://chaos/inputs/runs", "s3://chaos/runs"))
        environment = {**clean_environment(), **server.environment()}
        saved = dict(os.environ)
        os.environ.update(server.environment())
        place = Project(config, "s3://chaos/runs", environment)
        succeed(place.run("build-index", config))
        yield place, server
        os.environ.clear()
        os.environ.update(saved)


def test_a_job_with_every_path_in_a_bucket_makes_the_same_content(bucket, reference, tmp_path):
    """Corpus, log, judgements, index, results, report: nothing but the node cache is local."""
    place, _ = bucket
    succeed(place.run("rerank", place.config, "--run-id", "in-s3"))
    assert content(place.root, "in-s3") == reference
    succeed(place.run("runs", "verify", place.root, "in-s3"))
    assert list((place.config.parent / "cache").glob("??/*")), "index files lie in the node cache"
    results = open_results(place.root, "chaos")
    assert results.run_id == "in-s3"
    assert results.arrow().count_rows() == QUERIES
    assert results.polars().collect().height == QUERIES
    by_ray = "import sys, rerank_batch as r; print(r.open_results(*sys.argv[1:]).ray().count())"
    counted = subprocess.run(
        [sys.executable, "-c", by_ray, place.root, "chaos"],
        env={**place.environment, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert counted.returncode == 0, counted.stderr[-3000:]
    assert counted.stdout.split()[-1] == str(QUERIES)
    qrels = tmp_path / "qrels.parquet"
    judged = {"query_id": ["k0001"], "doc_id": ["d001"], "relevance": [1]}
    pq.write_table(pa.table(judged), qrels)
    summary = succeed(
        place.run("evaluate", place.config, "--run", "latest", "--json", "--set",
                  f"qrels.path={qrels}")
    )  # fmt: skip
    report = json.loads(summary.stdout)["report"]
    assert report == "s3://chaos/runs/runs/in-s3/report/report.html"
    assert b"<html" in open_root(place.root).read("runs/in-s3/report/report.html")
    out = tmp_path / "run.trec"
    succeed(place.run("runs", "export", place.root, "in-s3", "--out", out))
    assert len(out.read_text().splitlines()) == QUERIES * 5


@pytest.mark.slow
def test_a_store_that_goes_away_ends_the_run_clearly_and_a_resume_heals_it(
    bucket, reference, tmp_path
):
    place, server = bucket
    driver = place.driver(tmp_path / "log", "--run-id", "outage")
    wait_for(lambda: open_root(place.root).sizes("runs/outage/commits/"))
    server.kill()
    began = time.monotonic()
    assert driver.wait(200) == StorageError.exit_code, (tmp_path / "log").read_text()[-3000:]
    assert time.monotonic() - began < 180, "the retries are bounded"
    said = " ".join((tmp_path / "log").read_text().split())
    assert "nothing answers at http://127.0.0.1" in said or "tries" in said
    assert "--resume outage" in said
    assert "Traceback" not in said
    assert "site-packages" not in said, "one message, not the stack of a worker"
    server.restart()
    resumed = json.loads(
        succeed(place.run("rerank", place.config, "--resume", "outage", "--json")).stdout
    )
    assert resumed["done_before"] > 0
    assert content(place.root, "outage") == reference
    succeed(place.run("runs", "verify", place.root, "outage"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary-secret-of-a-wrong-key"}, "the secret key does not fit"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "the access key is unknown"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "nothing answers at http://127.0.0.1:9"),
    ],
)
def test_a_store_that_lets_nobody_in_is_found_before_any_model_is_loaded(bucket, change, said):
    place, _ = bucket
    locked = Project(place.config, place.root, {**place.environment, **change})
    began = time.monotonic()
    done = locked.run("rerank", place.config, "-v")
    assert done.returncode == StorageError.exit_code
    assert said in " ".join(done.stderr.split())
    assert time.monotonic() - began < 60
    assert "canary" not in done.stdout + done.stderr
    assert "Loading weights" not in done.stderr


def test_a_bucket_that_does_not_exist_is_found_before_any_model_is_loaded(bucket):
    place, _ = bucket
    done = place.run("rerank", place.config, "--set", "root=s3://nowhere/runs")
    fails(done, StorageError, "the bucket does not exist")
    done = place.run("rerank", place.config, "--set", "root=gs://bucket/runs")
    fails(done, ConfigError, "folders or s3://")


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_without_a_commit_and_a_resume_heals_it(
    project, reference, tmp_path
):
    """The root on a file system of 300 kB; then it grows."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        root = f"root={disk}/runs"
        full = project.run("rerank", project.config, "--run-id", "full", "--set", root)
        fails(full, StorageError, "No space left on device")
        kept = len(open_root(f"{disk}/runs").sizes("runs/full/commits/"))
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        succeed(project.run("rerank", project.config, "--resume", "full", "--set", root))
        assert content(f"{disk}/runs", "full") == reference
        assert kept < 20
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("name", ["final.json", "spec.json", "commit", "epoch"])
def test_a_damaged_object_is_a_hard_error_and_never_taken_for_absent(project, tmp_path, name):
    root = tmp_path / "runs"
    shutil.copytree(project.root, root)
    run = root / "runs/undisturbed"
    if name in ("commit", "epoch"):
        (run / "final.json").unlink()
        victim = min((run / f"{name}s").iterdir())
    else:
        victim = run / name
    victim.write_bytes(victim.read_bytes()[:-20])
    done = project.run("rerank", project.config, "--resume", "undisturbed", "--set", f"root={root}")
    fails(done, StorageError, victim.name, "is damaged")


@pytest.mark.slow
def test_one_megabyte_in_a_query_or_a_document_is_cut_flagged_and_survived(project, tmp_path):
    corpus = pq.read_table(project.config.parent / "corpus.parquet").to_pylist()
    corpus[5]["text"] = "river stone " * 90_000
    log = [{"query_id": "long", "query": "river " * 180_000}, {"query_id": "a", "query": "river"}]
    pq.write_table(pa.Table.from_pylist(corpus), tmp_path / "corpus.parquet")
    pq.write_table(pa.Table.from_pylist(log), tmp_path / "log.parquet")
    settings = {
        "corpus.path": tmp_path / "corpus.parquet",
        "queries.path": tmp_path / "log.parquet",
        "index.path": tmp_path / "index",
        "root": tmp_path / "runs",
        "retrieval.depth": 120,
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    succeed(project.run("build-index", project.config, *overrides))
    done = succeed(project.run("rerank", project.config, "--run-id", "big", *overrides, "--json"))
    flags = {row["query_id"]: row["flags"] for row in rows_of(str(tmp_path / "runs"), "big")}
    assert flags == {"a": ["truncated"], "long": ["query_cut", "truncated"]}
    assert json.loads(done.stdout)["pairs"] == 240


def rows_of(root: str, run_id: str) -> list[dict]:
    return open_results(root, "chaos", run_id).arrow().to_table().to_pylist()


def test_the_sabotage_of_these_tests_is_off_elsewhere():
    assert "RERANK_BATCH_SABOTAGE" not in os.environ
    assert (Path(HERE) / "sabotage/sitecustomize.py").is_file()
