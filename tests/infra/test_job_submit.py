"""`ray job submit` as infra/README.md says it, on a real Ray cluster with its job server."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from ray.cluster_utils import Cluster

from rerank_batch.runs import latest_run
from rerank_batch.storage import open_root
from tests.chaos.arena import write_base
from tests.chaos.project import Project, clean_environment, write_project
from tests.chaos.s3_server import free_base
from tests.infra.commands import lines
from tests.infra.manifests import INFRA

BIN = Path(sys.executable).parent


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Project, str]]:
    """A project with its index, and the address of the job server of a cluster."""
    base = write_base(tmp_path / "base")
    inputs = tmp_path / "project"
    config = write_project(inputs, base, str(inputs / "runs"), str(inputs), queries=20)
    environment = clean_environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    port = free_base()
    head = {
        "num_cpus": 2,
        "object_store_memory": 200_000_000,
        "include_dashboard": True,
        "dashboard_port": port,
    }
    with mock.patch.dict(os.environ, environment):
        cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        local = {**environment, "RAY_ADDRESS": cluster.address}
        project = Project(config, str(inputs / "runs"), local)
        built = project.run("build-index", config)
        assert built.returncode == 0, built.stderr
        yield project, f"http://127.0.0.1:{port}"
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_night_is_submitted_as_the_page_says_and_again_goes_on(
    cluster: tuple[Project, str],
) -> None:
    project, address = cluster
    (told,) = [line for line in lines(INFRA / "README.md") if line.startswith("ray job submit")]
    log = str(project.config.parent / "log.parquet")
    for there, here in (
        ("http://127.0.0.1:8265", address),
        ("/home/rerank/nightly.yaml", str(project.config)),
        ("s3://example-rerank/queries/date=2026-01-02", log),
        ("--no-wait ", ""),  # else the test would have to ask until it is done
    ):
        assert there in told
        told = told.replace(there, here)
    for submission in ("try-1", "try-2"):
        done = subprocess.run(
            shlex.split(told.replace("try-1", submission)),
            env=project.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    run = latest_run(open_root(project.root), "chaos")
    assert run is not None and run.run_id == "nightly-2026-01-02"
    assert "complete: nothing is left to do" in done.stdout
