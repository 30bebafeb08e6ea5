"""Read a finished run again, whole, and compare it with what its final.json says."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rerank_batch import schema
from rerank_batch.errors import RerankBatchError
from rerank_batch.runs.coverage import check_coverage
from rerank_batch.runs.objects import Commit, CommitName
from rerank_batch.runs.parquet import parse_parquet
from rerank_batch.runs.run import Run

_AT_ONCE = 4
_NAMED = 5


@dataclass
class Verification:
    """What was read, and every way in which it is not what it should be."""

    run_id: str
    files: int = 0
    bytes: int = 0
    queries: int = 0
    rejected: int = 0
    faults: list[str] = field(default_factory=list)


def verify_run(run: Run, progress: Callable[[int], None] = lambda done: None) -> Verification:
    """Re-read every file that a complete run lists.

    Checks the sha256 and row count of every file, that every planned query is there exactly once,
    in the results or in the rejects, that the commits cover the plan and list the same files, and
    that the totals are the sums of what is there. Each thread holds one file at a time.

    Raises:
        RunConflict: the run is not complete.
    """
    final = run.finished()
    verification = Verification(run.run_id)
    seen = np.zeros(run.spec.planned, dtype=np.uint8)
    rejected_rows = 0
    listed = [(file, True) for file in final["results"]]
    listed += [(file, False) for file in final["reject_files"]]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checks = pool.map(lambda each: _check_file(run, *each), listed)
        for number, (file, part) in enumerate(zip(listed, checks, strict=True), start=1):
            verification.faults += part.faults
            verification.files += 1
            verification.bytes += part.bytes
            planned = part.qidx[part.qidx >= 0]
            verification.queries += len(part.qidx) if file[1] else 0
            verification.rejected += 0 if file[1] else len(planned)
            rejected_rows += part.rejected_rows
            beyond = planned >= len(seen)
            if beyond.any():
                verification.faults.append(f"{file[0]['key']} holds queries beyond the plan")
            np.add.at(seen, planned[~beyond], 1)
            progress(number)
    verification.faults += _gaps(seen)
    verification.faults += _attempt(lambda: _check_commits(run, final))
    for name, value in (("queries", verification.queries), ("rejects", rejected_rows)):
        counted = final.get(name)
        counted = sum(counted.values()) if isinstance(counted, Mapping) else counted
        if counted is not None and counted != value:
            verification.faults.append(
                f"final.json counts {counted} {name}, the files hold {value}"
            )
    return verification


@dataclass
class _Part:
    bytes: int
    qidx: "np.ndarray[Any, np.dtype[np.int64]]"
    rejected_rows: int
    faults: list[str]


_NOTHING = np.empty(0, dtype=np.int64)


def _check_file(run: Run, file: Mapping[str, Any], is_results: bool) -> _Part:
    try:
        raw = run.root.read(run.listed(file))
        if raw is None:
            return _Part(0, _NOTHING, 0, [f"{file['key']} is missing"])
        if hashlib.sha256(raw).hexdigest() != file["sha256"]:
            return _Part(len(raw), _NOTHING, 0, [f"{file['key']} has another sha256"])
        table = parse_parquet(raw, file["key"])
    except RerankBatchError as error:
        return _Part(0, _NOTHING, 0, [str(error)])
    faults = []
    if table.num_rows != file["rows"]:
        faults.append(f"{file['key']} holds {table.num_rows} rows, not {file['rows']}")
    qidx = table.column(schema.QIDX).fill_null(-1).to_numpy().astype(np.int64)
    if is_results and len(qidx) and np.any(np.diff(qidx) <= 0):
        faults.append(f"{file['key']} is not in the order of its queries")
    rows = 0 if is_results else int(table.column("rows").to_numpy().sum())
    return _Part(len(raw), qidx, rows, faults)


def _gaps(seen: "np.ndarray[Any, np.dtype[np.uint8]]") -> list[str]:
    faults = []
    for wrong, how in ((np.flatnonzero(seen == 0), "missing"), (np.flatnonzero(seen > 1), "twice")):
        if len(wrong):
            first = ", ".join(map(str, wrong[:_NAMED]))
            faults.append(f"{len(wrong)} planned queries are {how}, first qidx {first}")
    return faults


def _check_commits(run: Run, final: Mapping[str, Any]) -> Iterable[str]:
    """The commits that final.json names are there, cover the plan and list the same files."""
    names = [CommitName.parse(name) for name in final["commits"]]
    check_coverage([(name.start, name.stop) for name in names], run.spec.planned, run.run_id)
    afresh = Run(run.root, run.run_id, run.spec)  # a run reads each commit once and keeps it
    commits: list[Commit] = afresh.commits(names)
    committed = {file.key: file.sha256 for commit in commits for file in commit.files}
    listed = {file["key"]: file["sha256"] for file in [*final["results"], *final["reject_files"]]}
    for key in sorted(committed.keys() - listed.keys()):
        yield f"{key} is committed and not listed"
    for key, sha256 in sorted(committed.items()):
        if listed.get(key, sha256) != sha256:
            yield f"{key} has another sha256 in its commit than in final.json"


def _attempt(check: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(check())
    except RerankBatchError as error:
        return [str(error)]
