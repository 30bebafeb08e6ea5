"""The run protocol: every planned query lands exactly once, and readers see whole runs only.

Objects under the root, all of them written once except the lease and the last:

    runs/<id>/spec.json                 what the run is: fingerprint, inputs, planned queries
    runs/<id>/mode-<stage>.json         in which mode a model of the cascade runs, decided once
    runs/<id>/cache-<stage>.json        which cached scores it uses, decided once
    runs/<id>/plan/*.parquet            planned queries, one file per block
    runs/<id>/epochs/<n>.json           who owns epoch n, and which earlier commits it accepts
    runs/<id>/lease.json                the owner's sign of life
    runs/<id>/data/*.parquet            results; present does not mean valid
    runs/<id>/rejects/*.parquet         what was dropped and why; plan.parquet before any stage
    runs/<id>/scores/<stage>/*.arrow    new scores, until they are in the score cache
    runs/<id>/paid/*.parquet            what services were paid for, committed or not
    runs/<id>/commits/<n>-<a>-<b>.json  queries a up to b, done in epoch n and hashed
    runs/<id>/final.json                the list of files that are the run, totals, metrics
    runs/<id>/guards.json               what its guards found, decided once
    runs/<id>/override.json             who published it though it failed a guard
    jobs/<job>/latest.json              pointer to the newest finished run of the job

A writer uploads a data file and then creates the commit; creating is first-come-only, so a task
that runs twice counts once. Whoever takes a run over creates the next epoch, which names the
commits it accepts: what a driver or worker of an older epoch still commits later never counts, on
any clock. A reader goes latest -> final -> files and never lists folders.
"""

from rerank_batch.runs.coverage import Done, block_bounds
from rerank_batch.runs.epochs import refuse_if_taken_over
from rerank_batch.runs.garbage import Garbage, find_garbage, remove_garbage
from rerank_batch.runs.latest import is_latest, latest_run, publish_run, read_latest
from rerank_batch.runs.lease import Lease, Owner
from rerank_batch.runs.objects import Commit, CommitName, from_json, to_json, total
from rerank_batch.runs.parquet import publish_parquet, read_block
from rerank_batch.runs.run import ABORTED, COMPLETE, Run, is_begun, list_runs
from rerank_batch.runs.spec import RunSpec
from rerank_batch.runs.verify import Verification, verify_run
from rerank_batch.runs.writer import BlockWriter

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
    "RunSpec",
    "Verification",
    "block_bounds",
    "find_garbage",
    "from_json",
    "is_begun",
    "is_latest",
    "latest_run",
    "list_runs",
    "publish_parquet",
    "publish_run",
    "read_block",
    "read_latest",
    "refuse_if_taken_over",
    "remove_garbage",
    "to_json",
    "total",
    "verify_run",
]
