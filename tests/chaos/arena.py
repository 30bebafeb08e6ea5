"""The place of the rounds: a Ray cluster that outlives drivers, a store, a reference run."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import yaml
from ray.cluster_utils import Cluster

from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.project import (
    HERE,
    Project,
    clean_environment,
    content,
    write_project,
)
from tests.chaos.rounds import Victim
from tests.chaos.s3_server import S3Server
from tests.conftest import write_collection, write_cross_encoder, write_encoder


@contextmanager
def arena(folder: Path, kind: str, sabotage: str | None = None) -> Iterator[Victim]:
    """Everything that the rounds on one kind of root need; torn down at the end."""
    folder.mkdir(parents=True)
    base = write_base(folder / "base")
    with ExitStack() as stack:
        server = proxy = None
        environment = clean_environment()
        root = inputs = str(folder / "project")
        if kind == "s3":
            # The server lives as long as the thread that starts it: one thread for all its lives.
            keeper = stack.enter_context(ThreadPoolExecutor(1))
            (folder / "s3").mkdir()
            server = S3Server(folder / "s3")
            keeper.submit(server.start).result()
            stack.callback(lambda: keeper.submit(server.stop).result())
            server.create_bucket("chaos")
            proxy = stack.enter_context(FaultProxy(server.port, seed=0, rates={}))
            stack.enter_context(mock.patch.dict(os.environ, server.environment()))
            environment |= {**server.environment(), "AWS_ENDPOINT_URL_S3": proxy.endpoint}
            root, inputs = "s3://chaos/root", "s3://chaos/inputs"
        config = write_project(folder / "project", base, f"{root}/runs", inputs)
        if server is not None:
            for file in (folder / "project").glob("*.parquet"):
                server.client().upload_file(str(file), "chaos", f"inputs/{file.name}")
        project = Project(config, f"{root}/runs", environment)
        if sabotage:
            environment["RERANK_BATCH_SABOTAGE"] = sabotage
            environment["PYTHONPATH"] = str(HERE / "sabotage")
        cluster = stack.enter_context(ray_cluster(environment))
        environment["RAY_ADDRESS"] = cluster.address
        _must(project.run("build-index", config))
        _must(project.run("rerank", config, "--run-id", "undisturbed"))
        reference = content(project.root, "undisturbed")
        yield Victim(project, reference, proxy, server, keeper if kind == "s3" else None)


@contextmanager
def ray_cluster(environment: dict[str, str], cpus: int = 2) -> Iterator[Cluster]:
    """A Ray cluster that lives on when drivers die; its workers inherit ``environment``."""
    with mock.patch.dict(os.environ, environment):
        node = {"num_cpus": cpus, "object_store_memory": 200_000_000}
        cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def write_base(folder: Path) -> Path:
    """A collection, tiny models and the configuration over them."""
    collection, reranker, encoder = (folder / n for n in ("collection", "reranker", "encoder"))
    write_collection(collection)
    write_cross_encoder(reranker)
    write_encoder(encoder, folder / "bert")
    config = {
        "job": "test",
        "corpus": {"path": str(collection / "corpus.parquet")},
        "queries": {"path": str(collection / "log.parquet")},
        "qrels": {"path": str(collection / "qrels.parquet")},
        "index": {
            "path": "-",
            "encoder": f"sentence-transformers:{encoder}",
            "runtime": "torch",
            "shards": 3,
        },
        "reranker": {"model": f"cross-encoder:{reranker}", "runtime": "torch", "top_k": 5},
        "evaluation": {"measures": ["nDCG@10", "RR@10"]},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def _must(done: "subprocess.CompletedProcess[str]") -> None:
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-4000:])
