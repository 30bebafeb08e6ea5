"""Storage: roots of runs and indexes, input files, the cache of a node."""

from rerank_batch.storage.base import Published, Root, sha256_file
from rerank_batch.storage.file_hashes import file_hashes
from rerank_batch.storage.inputs import (
    InputFile,
    file_kinds,
    filesystem_of,
    input_files,
    open_dataset,
    open_file,
    reading_failed,
)
from rerank_batch.storage.node_cache import NodeCache, Wanted
from rerank_batch.storage.objects import DataFile, new_nonce
from rerank_batch.storage.open import open_root
from rerank_batch.storage.s3 import endpoint_variables, use_endpoint

__all__ = [
    "DataFile",
    "InputFile",
    "NodeCache",
    "Published",
    "Root",
    "Wanted",
    "endpoint_variables",
    "file_hashes",
    "file_kinds",
    "filesystem_of",
    "input_files",
    "new_nonce",
    "open_dataset",
    "open_file",
    "open_root",
    "reading_failed",
    "sha256_file",
    "use_endpoint",
]
