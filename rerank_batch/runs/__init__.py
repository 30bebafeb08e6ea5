"""Runs: the protocol that keeps every query exactly once, and what looks after finished runs."""

from rerank_batch.runs.coverage import Done, block_bounds
from rerank_batch.runs.garbage import Garbage, find_garbage, remove_garbage
from rerank_batch.runs.lease import Lease, Owner
from rerank_batch.runs.objects import Commit, CommitName, from_json, to_json, total
from rerank_batch.runs.run import (
    ABORTED,
    COMPLETE,
    BlockWriter,
    Run,
    is_begun,
    latest_run,
    list_runs,
    publish_parquet,
    read_block,
    read_latest,
    refuse_if_taken_over,
)
from rerank_batch.runs.verify import Verification, verify_run

__all__ = [
    "ABORTED",
    "COMPLETE",
    "BlockWriter",
    "Commit",
    "CommitName",
    "Done",
    "Garbage",
    "Lease",
    "Owner",
    "Run",
    "Verification",
    "block_bounds",
    "find_garbage",
    "from_json",
    "is_begun",
    "latest_run",
    "list_runs",
    "publish_parquet",
    "read_block",
    "read_latest",
    "refuse_if_taken_over",
    "remove_garbage",
    "to_json",
    "total",
    "verify_run",
]
