"""A canary in the place of a secret: a whole run on S3, a failing one, and nothing holds it."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.chaos.arena import write_base
from tests.chaos.project import Project, clean_environment, write_project
from tests.chaos.s3_server import S3Server

CANARY = "canary0in0the0coal0mine"


@pytest.fixture
def ray_folder():
    """Where Ray keeps its logs; short, because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_no_artifact_log_or_traceback_holds_a_secret(tmp_path, ray_folder):
    (tmp_path / "s3").mkdir()
    with S3Server(tmp_path / "s3", secret_key=CANARY) as server:
        server.create_bucket("chaos")
        inputs = tmp_path / "project"
        base = write_base(tmp_path / "base")
        config = write_project(inputs, base, "s3://chaos/runs", "s3://chaos/in", queries=8)
        for file in inputs.glob("*.parquet"):
            server.client().upload_file(str(file), "chaos", f"in/{file.name}")
        environment = clean_environment(**server.environment(), RAY_TMPDIR=str(ray_folder))
        project = Project(config, "s3://chaos/runs", environment)
        said = [
            project.run("build-index", config, "-v"),
            project.run("rerank", config, "--run-id", "one", "-v"),
            # A failure inside a worker and one in the driver, with their tracebacks.
            project.run("rerank", config, "-v", "--set", "reranker.max_length=9", "--set",
                        f"reranker.model=cross-encoder:{broken(tmp_path)}"),
            project.run("rerank", config, "--resume", "one", "-v", "--set", "retrieval.depth=5"),
        ]  # fmt: skip
        assert [done.returncode for done in said] == [0, 0, 7, 9], [s.stderr[-900:] for s in said]
        artifacts = objects(server)
        assert len(artifacts) > 15
    logs = {str(file): file.read_bytes() for file in ray_folder.rglob("*") if file.is_file()}
    logs |= {str(file): file.read_bytes() for file in inputs.rglob("*") if file.is_file()}
    assert any("worker" in name for name in logs)
    logs |= {f"output {n}": (d.stdout + d.stderr).encode() for n, d in enumerate(said)}
    assert b"Traceback" in logs["output 2"] + logs["output 3"], "-v shows tracebacks"
    holding = [name for name, raw in {**artifacts, **logs}.items() if CANARY.encode() in raw]
    assert holding == []


def objects(server: S3Server) -> dict[str, bytes]:
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="chaos")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.get_object(Bucket="chaos", Key=key)["Body"].read() for key in keys}


def broken(folder: Path) -> Path:
    """A model of which only the actor that loads it can know that it does not load."""
    target = folder / "broken"
    shutil.copytree(folder / "base/reranker", target)
    config = target / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"nonsense"'))
    return target


def test_the_canary_would_be_found(tmp_path):
    """The search itself: a secret that is printed is seen."""
    shown = subprocess.run(["echo", CANARY], capture_output=True, check=True)
    assert CANARY.encode() in shown.stdout
