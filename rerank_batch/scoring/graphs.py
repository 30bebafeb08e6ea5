"""Where nodes keep exported networks."""

from rerank_batch.config import StorageConfig
from rerank_batch.config.node_cache import node_cache
from rerank_batch.scoring.modes import Graphs


def graphs(storage: StorageConfig, fingerprint: str) -> Graphs:
    """Where each node keeps the exported network of a model."""
    return Graphs(node_cache(storage).folder / "graphs", fingerprint)
