"""The cache of files that every node of a cluster keeps."""

from rerank_batch.config.paths import cache_folder
from rerank_batch.config.storage import StorageConfig
from rerank_batch.storage import NodeCache


def node_cache(storage: StorageConfig) -> NodeCache:
    """The cache of every node that the job runs on."""
    return NodeCache(cache_folder(storage.cache), int(storage.cache_gb * 1e9))
