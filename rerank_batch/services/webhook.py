"""Post one JSON object to a hook, under the rules that hold for every service.

The name is resolved and its addresses are checked, only https is spoken beyond this machine, no
redirect is followed, tries are bounded. What the hook answers is not read.
"""

from collections.abc import Mapping
from typing import Any

from rerank_batch.config import ServiceConfig
from rerank_batch.services.address import hook_address
from rerank_batch.services.client import Client, Request
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage


def post(variable: str, body: Mapping[str, Any], timeout_seconds: float, attempts: int) -> None:
    """Post ``body`` to the URL in an environment variable; returns once it was taken.

    Raises:
        ConfigError: the variable is missing or holds no URL.
        ServiceError: the hook refuses it, or no try came to anything.
    """
    address = hook_address(variable)
    settings = ServiceConfig(timeout_seconds=timeout_seconds, attempts=attempts, concurrency=1)
    client = Client(address, Pace(), settings, Budget())
    request = Request("", body, [address.prefix], parse=lambda raw: None)

    async def send(_: int) -> None:
        await client.call(request, lambda nothing: (None, Usage()))

    for _ in client.in_parallel(1, send):
        pass
