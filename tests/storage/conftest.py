"""A real S3 server for these tests, the proxy that breaks requests to it, and waits cut short."""

import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import botocore.endpoint
import pytest
import stamina

from rerank_batch.storage import Root, inputs, open_root, s3
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.s3_server import S3Server

BUCKET = "store"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, with this process's environment pointing at it and nothing else."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield server
    forget_clients()


@pytest.fixture
def prefix(store: S3Server) -> str:
    """A place in the bucket that no other test knows."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def bucket(prefix: str) -> Root:
    return open_root(prefix)


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """Both kinds of root; what holds for one has to hold for the other."""
    if request.param == "folder":
        return open_root(str(tmp_path / "root"))
    found: Root = request.getfixturevalue("bucket")
    return found


Through = Callable[..., AbstractContextManager[FaultProxy]]


@pytest.fixture
def through(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> Through:
    """A context in which this process talks to the server through a proxy with given faults."""

    @contextmanager
    def proxy(seed: int = 1, **rates: float) -> Iterator[FaultProxy]:
        with FaultProxy(store.port, seed, rates) as proxy, monkeypatch.context() as patch:
            patch.setenv(s3.ENDPOINT, proxy.endpoint)
            yield proxy
        assert proxy.errors == []

    return proxy


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Retries of boto3 and stamina without their waits; boto3's are listed here."""
    slept: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", types.SimpleNamespace(sleep=slept.append))
    with stamina.set_testing(True, attempts=s3.TRIES, cap=True):
        yield slept


def forget_clients() -> None:
    """Clients remember the credentials they were made with."""
    s3._client.cache_clear()
    inputs._s3_filesystem.cache_clear()
