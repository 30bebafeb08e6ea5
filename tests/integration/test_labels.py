"""Labels on a real cluster: a driver and a worker killed with -9, and the benchmark's figures."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from rerank_batch.benchmarks.synthetic_runs import write_run
from rerank_batch.runs import Run, verify_run
from rerank_batch.storage import open_root
from tests.chaos.arena import ray_cluster
from tests.chaos.project import clean_environment, content
from tests.conftest import run_json
from tests.support.helpers import wait_for

QUERIES, BLOCKS = 4000, 20


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """4,000 queries of 30 candidates over 5,000 documents, to be labelled in 20 blocks."""
    folder = tmp_path_factory.mktemp("labels")
    config = write_run(folder, 5000, QUERIES, 30).model_dump(mode="json")
    config["compute"]["block_rows"] = QUERIES // BLOCKS
    config["storage"]["lease_seconds"] = 4
    config["labels"]["formats"] = ["margin-mse", "flagembedding"]
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def files(out: Path) -> dict[str, bytes]:
    found = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*.*")}
    return {name: raw for name, raw in found.items() if name not in ("card.json", "README.md")}


@pytest.mark.slow
def test_labels_of_a_driver_that_was_killed_are_those_of_one_that_was_not(config_file, tmp_path):
    root = yaml.safe_load(config_file.read_text())["root"]
    with ray_cluster(clean_environment()) as cluster:
        environment = clean_environment(RAY_ADDRESS=cluster.address)

        def command(out: str, *arguments: str) -> list[str]:
            start = [sys.executable, "-m", "jobs", "make-labels", str(config_file)]
            return [*start, "--out", str(tmp_path / out), "--json", *arguments]

        def done(out: str, *arguments: str) -> dict:
            finished = subprocess.run(
                command(out, *arguments), env=environment, capture_output=True, check=False
            )
            assert finished.returncode == 0, finished.stderr.decode()[-3000:]
            return json.loads(finished.stdout)

        whole = done("whole", "--run-id", "whole")
        assert whole["leak_check"]["passed"]
        driver = subprocess.Popen(
            command("killed", "--run-id", "killed"), env=environment, stderr=subprocess.DEVNULL
        )
        place = open_root(root)
        wait_for(lambda: len(place.sizes("runs/killed/commits/")) >= 2)
        workers = [p for p in psutil.process_iter() if "MapWorker(mine)" in " ".join(_line(p))]
        for worker in workers[:1]:
            worker.kill()
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
        committed = len(place.sizes("runs/killed/commits/"))
        assert committed < BLOCKS, "it was killed too late to show anything"
        assert not (tmp_path / "killed").exists()
        resumed = done("killed", "--resume", "killed")
    run = Run.open(place, "killed")
    assert run.epoch == 0
    assert run.finished()["epoch"] == 2
    assert verify_run(run).faults == []
    assert content(root, "killed") == content(root, "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert resumed["rows"] == whole["rows"]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_the_benchmark_tells_rows_and_memory():
    asked = ("--queries", 3000, "--documents", 5000)
    found = run_json("benchmark", "labels", *asked, timeout=600)
    assert found["rows"] > 8 * 3000
    assert found["rows_per_second"] > 0
    assert 0 < found["peak_memory_gb"] < 8
    assert found["leak_check"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    """A million rows in little more memory than a quarter of them: what grows is the plan."""
    peaks, rows = [], []
    for queries in (28_000, 112_000):
        found = run_json("benchmark", "labels", "--queries", queries, timeout=1500)
        peaks.append(found["peak_memory_gb"])
        rows.append(found["rows"])
    assert rows[1] > 1_000_000
    assert peaks[1] < 1.4 * peaks[0], (peaks, rows)
