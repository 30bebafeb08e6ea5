"""Both kinds of root in every test, the proxy that breaks requests to S3, and waits cut short."""

import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import botocore.endpoint
import pytest
import stamina

from rerank_batch.storage import Root, open_root, s3
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.s3_server import S3Server


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
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
