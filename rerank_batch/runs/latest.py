"""latest.json of a job: the pointer to its newest finished run."""

from rerank_batch.config import RUN_ID
from rerank_batch.errors import (
    ConfigError,
    GuardsFailed,
    RunConflict,
)
from rerank_batch.runs.decisions import is_held_back
from rerank_batch.runs.objects import (
    from_json,
    latest_key,
    to_json,
)
from rerank_batch.runs.run import Run
from rerank_batch.schema import JsonObject
from rerank_batch.storage import Root

_LATEST_KEYS = ("run_id", "created")


def publish_run(run: Run) -> bool:
    """Make the run the latest of its job, unless a newer one is; says whether it was moved.

    Raises:
        RunConflict: the run is not complete.
        GuardsFailed: it failed a guard, whoever tries; see `decisions.override`.
    """
    run.finished()
    if is_held_back(run):
        raise GuardsFailed(f"run {run.run_id} failed a guard and is not published")
    key = latest_key(run.spec.job)
    mine = {"run_id": run.run_id, "created": run.spec.created}
    while True:
        current = run.root.read(key)
        if (
            current is not None
            and from_json(current, key, _LATEST_KEYS)["created"] >= mine["created"]
        ):
            return False
        if run.root.swap(key, to_json(mine), expected=current):
            return True


def is_latest(run: Run) -> bool:
    """Whether the job's latest.json names this run."""
    latest = read_latest(run.root, run.spec.job)
    return latest is not None and latest["run_id"] == run.run_id


def read_latest(root: Root, job: str) -> JsonObject | None:
    """latest.json of a job, or None."""
    key = latest_key(job)
    raw = root.read(key)
    return None if raw is None else from_json(raw, key, _LATEST_KEYS)


def latest_run(root: Root, job: str) -> Run:
    """The newest finished run of a job.

    Raises:
        RunConflict: the job has none.
    """
    if not RUN_ID.match(job):
        raise ConfigError(f"{job!r} is not a job name")
    latest = read_latest(root, job)
    if latest is None:
        raise RunConflict(
            f"job {job!r} has no finished run under {root.uri} that is its latest. Runs of "
            "evaluate and those that failed a guard are named by id: "
            f"rerank-batch runs list {root.uri}"
        )
    return Run.open(root, latest["run_id"])
