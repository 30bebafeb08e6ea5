"""Three Ray nodes give what one gives, to the byte, also when one dies and another comes."""

import time

import pytest

from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from tests.chaos.arena import ray_cluster, write_base
from tests.chaos.project import Project, clean_environment, content, write_project
from tests.integration.test_node_death import scorers_on
from tests.support.helpers import wait_for

NODE = {"num_cpus": 2, "object_store_memory": 200_000_000}
QUERIES, BLOCKS = 240, 60


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(clean_environment()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory):
    """A project of 60 small blocks, and ``one``: its run on a single node of two CPUs."""
    folder = tmp_path_factory.mktemp("three-nodes")
    base = write_base(folder / "base")
    inputs = folder / "project"
    config = write_project(inputs, base, str(inputs / "runs"), str(inputs), queries=QUERIES)
    environment = clean_environment(RAY_ADDRESS=cluster.address)
    project = Project(config, str(inputs / "runs"), environment)
    for command in (["build-index", config], ["rerank", config, "--run-id", "one"]):
        done = project.run(*command)
        assert done.returncode == 0, done.stderr
    for _ in range(2):
        cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return project


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_three_nodes_give_what_one_gives(cluster, project, tmp_path):
    driver = project.driver(tmp_path / "log", "--run-id", "three")
    nodes = [cluster.head_node, *cluster.worker_nodes]
    wait_for(lambda: all(map(scorers_on, nodes)) or driver.poll() is not None, 240)
    assert driver.poll() is None, "every node had a reranking actor on it"
    assert driver.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]
    assert final_of(project, "three")["actors"]["rerank"] == 3
    assert content(project.root, "three") == content(project.root, "one")
    assert project.run("runs", "verify", project.root, "three").returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_node_that_dies_and_one_that_comes_change_nothing(cluster, project, tmp_path):
    driver = project.driver(tmp_path / "log", "--run-id", "disturbed")
    root = open_root(project.root)
    while not root.sizes("runs/disturbed/commits/") and driver.poll() is None:
        time.sleep(0.05)
    victim = next(iter(cluster.worker_nodes))
    assert scorers_on(victim), "the node that dies has a reranking actor on it"
    cluster.remove_node(victim, allow_graceful=False)
    committed = len(root.sizes("runs/disturbed/commits/"))
    assert committed < BLOCKS - 10, "killed too late to prove anything"
    cluster.add_node(**NODE)
    assert driver.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]
    final = final_of(project, "disturbed")
    assert final["queries"] + sum(final["rejects"].values()) == QUERIES
    assert len(final["commits"]) == BLOCKS, "each block counts once"
    assert content(project.root, "disturbed") == content(project.root, "one")
    assert project.run("runs", "verify", project.root, "disturbed").returncode == 0
    print(f"\nnode killed after {committed} of {BLOCKS} blocks: same content")


def final_of(project: Project, run_id: str) -> dict:
    return Run.open(open_root(project.root), run_id).finished()
