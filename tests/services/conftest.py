"""A service on loopback, and this process's environment pointing at it and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import stamina

from rerank_batch.services.address import SERVICES
from tests.services.server import KEY, ServiceServer


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without any address or key of a service."""
    for place in SERVICES.values():
        for name in (place.url_variable, *place.key_variables):
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def serve(environment: pytest.MonkeyPatch) -> Iterator[Callable[..., ServiceServer]]:
    """Start the service of a family; settings as of `ServiceServer`."""
    with ExitStack() as servers:

        def start(family: str, **settings: Any) -> ServiceServer:
            server = servers.enter_context(ServiceServer(family, **settings))
            prefix = "/v1" if family == "llm" else ""  # as such base URLs are given
            environment.setenv(SERVICES[family].url_variable, server.url + prefix)
            environment.setenv(SERVICES[family].key_variables[0], KEY)
            return server

        yield start


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Retries without their waits; what a service asks for is still waited for."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
