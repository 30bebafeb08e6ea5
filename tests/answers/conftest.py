"""A service on loopback, as for the rerankers."""

from tests.services.conftest import environment, serve

__all__ = ["environment", "serve"]
