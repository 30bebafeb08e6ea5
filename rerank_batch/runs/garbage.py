"""What a root holds that no reader will ask for: found first, removed only when told to.

Only runs with a final.json are touched: what an unfinished run left behind is what a resume needs.
The run that latest.json names is never touched, nor is a newer one that is about to become it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rerank_batch.errors import RunConflict
from rerank_batch.runs.latest import read_latest
from rerank_batch.runs.objects import CommitName, run_key
from rerank_batch.runs.run import ABORTED, Run, list_runs
from rerank_batch.storage import Root

STALE_UPLOAD_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Garbage:
    """Objects of one run to remove, in the order in which that is safe, and why."""

    run_id: str
    why: str
    keys: list[str]
    uploads: list[str]
    bytes: int


def find_garbage(root: Root, job: str | None = None, keep: int | None = None) -> list[Garbage]:
    """What could be removed under a root.

    Of complete runs the files that final.json does not list, of aborted ones the data, of both the
    uploads that broke off a day ago. ``keep`` gives up whole complete runs as well, all but the
    newest ``keep`` of each job.
    """
    runs = _readable_runs(root)
    garbage = []
    newer: dict[str, int] = {}
    for run in reversed(runs):
        of_job = run.spec.job
        final = run.final()
        if final is None or (job is not None and of_job != job):
            continue
        latest = read_latest(root, of_job)
        if final["state"] != ABORTED:
            newer[of_job] = newer.get(of_job, 0) + 1
            if latest is None or run.spec.created >= latest["created"]:
                continue
        if keep is not None and final["state"] != ABORTED and newer[of_job] > keep:
            garbage.append(_whole_run(root, run))
        else:
            garbage.append(_unlisted(root, run, final["state"] == ABORTED))
    return [part for part in reversed(garbage) if part.keys or part.uploads]


def _readable_runs(root: Root) -> list[Run]:
    """The runs under a root that this version understands, oldest first."""
    runs = []
    for run_id in list_runs(root):
        with suppress(RunConflict):
            runs.append(Run.open(root, run_id))
    return runs


def remove_garbage(root: Root, garbage: Sequence[Garbage]) -> None:
    """Remove what `find_garbage` found."""
    for part in garbage:
        # In batches that keep the order: a removal that dies half-way leaves what says so.
        root.delete(part.keys)
        for upload in part.uploads:
            root.drop_upload(upload)


def _whole_run(root: Root, run: Run) -> Garbage:
    """Every object, spec and final last, so that what is half removed is still seen as a run."""
    prefix = run_key(run.run_id, "")
    sizes = root.sizes(prefix)
    last = [run_key(run.run_id, name) for name in ("final.json", "spec.json")]
    keys = [key for key in sizes if key not in last] + [key for key in last if key in sizes]
    return Garbage(
        run.run_id, "older than the runs to keep", keys, _uploads(root, run), sum(sizes.values())
    )


def _unlisted(root: Root, run: Run, aborted: bool) -> Garbage:
    final = run.finished() if not aborted else {"results": [], "reject_files": [], "commits": []}
    listed = {run.listed(file) for file in [*final["results"], *final["reject_files"]]}
    listed |= {run_key(run.run_id, CommitName.parse(name).key) for name in final["commits"]}
    sizes = {
        key: size
        for folder in ("data/", "rejects/", "scores/", "commits/")
        for key, size in root.sizes(run_key(run.run_id, folder)).items()
        if key not in listed
    }
    why = "data of an aborted run" if aborted else "not listed by its final.json"
    return Garbage(run.run_id, why, list(sizes), _uploads(root, run), sum(sizes.values()))


def _uploads(root: Root, run: Run) -> list[str]:
    return root.stale_uploads(run_key(run.run_id, ""), STALE_UPLOAD_SECONDS)
