"""Look one query up, as a reader would: in a serving export, or in the latest run of a job."""

from pathlib import Path

from rerank_batch.config.paths import is_text
from rerank_batch.data.query_text import match_key
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.reporter import visible
from rerank_batch.runs import Run, latest_run
from rerank_batch.runs.export.serving import look_up, look_up_run
from rerank_batch.schema import TableRow
from rerank_batch.storage import open_root


def lookup(where: str, query: str, job: str | None, run_id: str | None) -> TableRow:
    """The row of a query, ``key`` and what `rerank_batch.runs.export.serving` keeps of it.

    Raises:
        InputError: there is no such query.
        ConfigError: the root has several jobs, and none is named; or the query is no text.
        RunConflict: the job has no finished run.
    """
    if not is_text(query):
        raise ConfigError(f"the query {visible(query)} is not UTF-8: no text has such bytes")
    if where.endswith(".parquet") or Path(where).is_file():
        if job or run_id:
            raise ConfigError("--job and --run choose a run under a ROOT; this is a file")
        found = look_up(where, query)
    else:
        found = look_up_run(_run(where, job, run_id), query)
    if found is None:
        raise InputError(f"{where} has no results for {match_key(query)!r}")
    return found


def _run(uri: str, job: str | None, run_id: str | None) -> Run:
    root = open_root(uri)
    if run_id is not None:
        return Run.open(root, run_id)
    if job is None:
        jobs = root.folders("jobs/")
        if len(jobs) > 1:
            raise ConfigError(f"{uri} has several jobs: choose one with --job {'|'.join(jobs)}")
        job = jobs[0] if jobs else "rerank"
    return latest_run(root, job)
