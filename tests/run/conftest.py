"""Every test of the run protocol runs on both kinds of root: a folder, and a real S3 server."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_batch.storage import Root, open_root
from tests.chaos.s3_server import S3Server

BUCKET = "runs"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


# What a bucket does otherwise than a folder is in tests/storage, which always runs.
@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    if request.param == "folder":
        return open_root(str(tmp_path / "root"))
    for name, value in request.getfixturevalue("s3_server").environment().items():
        monkeypatch.setenv(name, value)
    return open_root(f"s3://{BUCKET}/{uuid.uuid4().hex}")
