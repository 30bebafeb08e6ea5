"""A node of a Ray cluster dies in mid-run with every process on it: the same content."""

import os
import time

import psutil
import pytest

from rerank_batch.storage import open_root
from tests.chaos.arena import ray_cluster, write_base
from tests.chaos.project import Project, clean_environment, content, write_project
from tests.support.helpers import wait_for


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_that_dies_in_the_middle_changes_nothing(tmp_path):
    """Two nodes of two CPUs; the second is killed and, as on spot machines, another one comes."""
    base = write_base(tmp_path / "base")
    inputs = tmp_path / "project"
    config = write_project(inputs, base, str(inputs / "runs"), str(inputs), queries=240)
    with ray_cluster(clean_environment()) as cluster:
        cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
        cluster.wait_for_nodes()
        environment = clean_environment(RAY_ADDRESS=cluster.address)
        project = Project(config, str(inputs / "runs"), environment)
        for command in (["build-index"], ["rerank", "--run-id", "whole"]):
            done = project.run(command[0], config, *command[1:])
            assert done.returncode == 0, done.stderr

        driver = project.driver(tmp_path / "log", "--run-id", "killed")
        root = open_root(project.root)
        while not root.sizes("runs/killed/commits/") and driver.poll() is None:
            time.sleep(0.05)
        (victim,) = cluster.worker_nodes
        assert scorers_on(victim), "the node that dies has a reranking actor on it"
        cluster.remove_node(victim, allow_graceful=False)
        committed = len(root.sizes("runs/killed/commits/"))
        assert committed < 50, "killed too late to prove anything"
        said = "waiting for 2 of 4 CPUs that the cluster has lost"
        wait_for(lambda: said in (tmp_path / "log").read_text())
        cluster.add_node(num_cpus=2, object_store_memory=200_000_000)
        assert driver.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]

    assert content(project.root, "killed") == content(project.root, "whole")
    assert project.run("runs", "verify", project.root, "killed").returncode == 0
    print(f"\nnode killed after {committed} of 60 blocks: same content")


def scorers_on(node) -> list[int]:
    """Reranking actors below the node's raylet."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [
        child.pid
        for child in raylet.children(recursive=True)
        if child.pid != os.getpid() and "MapBatches(rerank)" in " ".join(child.cmdline())
    ]
