"""The run protocol: every planned query lands exactly once, and readers see whole runs only.

Objects under the root, all of them written once except the last:

    runs/<id>/spec.json             what the run is: fingerprint, inputs, planned queries
    runs/<id>/plan/*.parquet        planned queries, one file per block; rejects.parquet beside them
    runs/<id>/epochs/<n>.json       who owns epoch n, and which earlier commits it accepts
    runs/<id>/data/*.parquet        results; present does not mean valid
    runs/<id>/commits/<n>-<q>.json  one block of epoch n that begins with query q, done and hashed
    runs/<id>/final.json            the list of files that are the run, totals, metrics
    jobs/<job>/latest.json          pointer to the newest finished run of the job

A writer uploads a data file, checks its size and then creates the commit; creating is
first-come-only, so a task that runs twice counts once. A reader goes latest -> final -> files and
never lists folders. Knows Parquet files and JSON objects, not what is in the rows.
"""

import hashlib
import itertools
import json
import math
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.config import RUN_ID
from rerank_batch.errors import ConfigError, RunConflict, StorageError
from rerank_batch.storage import Root, open_root, sha256_file

PROTOCOL = 1
_SPEC_KEYS = ("job", "created", "made_of")
_FINAL_KEYS = ("state", "run_id", "results")
_LATEST_KEYS = ("run_id", "created")
_PLAN_REJECTS = "rejects/plan.parquet"
_WRITER = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a run: key relative to the run, bytes, sha256, rows."""

    key: str
    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Commit:
    """One block of queries, done: its files and everything that is summed over blocks.

    ``ranges`` are half-open ranges of qidx; ``sums`` maps a name to a total, ``seconds`` a stage to
    the actor time that went into the block.
    """

    epoch: int
    nonce: str
    ranges: list[tuple[int, int]]
    results: DataFile | None
    rejects: DataFile | None
    sums: dict[str, float]
    reject_reasons: dict[str, int]
    seconds: dict[str, float]

    @property
    def key(self) -> str:
        """Name of the commit object: epoch and first query."""
        return f"commits/{self.epoch:04d}-{self.ranges[0][0]:012d}.json"


@dataclass(frozen=True)
class BlockWriter:
    """Writes blocks for one epoch from any process; small and picklable."""

    root: Root
    run_id: str
    epoch: int

    def write(
        self,
        qidx: Sequence[int],
        results: pa.Table,
        rejects: pa.Table,
        sums: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> Commit:
        """Publish a block and commit it; the commit that counts is returned.

        Where another attempt at the same block committed first, its commit is returned and the
        file written here is left unlisted.
        """
        stem = f"{self.epoch:04d}-{min(qidx):012d}-{uuid.uuid4().hex[:12]}"
        commit = Commit(
            epoch=self.epoch,
            nonce=uuid.uuid4().hex,
            ranges=as_ranges(qidx),
            results=self._publish(f"data/{stem}.parquet", results),
            rejects=self._publish(f"rejects/{stem}.parquet", rejects),
            sums=dict(sums),
            reject_reasons=_count(rejects),
            seconds=dict(seconds),
        )
        key = _run_key(self.run_id, commit.key)
        if self.root.create_once(key, _to_json(asdict(commit))):
            return commit
        winner = self.root.read(key)
        if winner is None:
            raise StorageError(f"{key} exists but cannot be read")
        return _to_commit(winner, key)

    def _publish(self, key: str, table: pa.Table) -> DataFile | None:
        if table.num_rows == 0:
            return None
        return publish_parquet(self.root, _run_key(self.run_id, ""), key, table)


@dataclass
class Run:
    """A run as its driver sees it; see the module for the objects."""

    root: Root
    run_id: str
    spec: dict[str, Any]
    epoch: int = 0
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def create(cls, root: Root, run_id: str, spec: Mapping[str, Any]) -> "Run":
        """Create the run's spec.

        Raises:
            ConfigError: the id is not one.
            RunConflict: the id is taken; the message says by what.
        """
        _check_run_id(run_id)
        run = cls(root, run_id, {**spec, "protocol": PROTOCOL})
        if not root.create_once(_run_key(run_id, "spec.json"), _to_json(run.spec)):
            other = cls.open(root, run_id)
            differs = describe_differences(other.spec["made_of"], run.spec["made_of"])
            what = f"with other inputs: {differs}" if differs else "with the same inputs"
            state = "finished" if other.final() is not None else "not finished"
            raise RunConflict(
                f"run {run_id} exists under {root.uri} ({state}, {what}); "
                "nothing was written. Choose another --run-id"
            )
        return run

    @classmethod
    def open(cls, root: Root, run_id: str) -> "Run":
        """An existing run.

        Raises:
            RunConflict: there is none.
        """
        _check_run_id(run_id)
        raw = root.read(_run_key(run_id, "spec.json"))
        if raw is None:
            known = ", ".join(list_runs(root)[-5:]) or "none"
            raise RunConflict(f"no run {run_id} under {root.uri}; newest runs: {known}")
        return cls(root, run_id, _from_json(raw, f"{run_id}/spec.json", _SPEC_KEYS))

    def write_plan(self, queries: pa.Table, rejects: pa.Table, block_rows: int) -> None:
        """Write the plan, one file per block, and its rejects if there are any."""
        for number, (start, stop) in enumerate(block_bounds(queries.num_rows, block_rows)):
            self._publish(f"plan/{number:08d}.parquet", queries.slice(start, stop - start))
        if rejects.num_rows:
            self._publish(_PLAN_REJECTS, rejects)

    def claim(self) -> int:
        """Become the owner of the run's next epoch and return its number.

        Raises:
            RunConflict: another driver took the epoch first.
        """
        taken = self.root.list(_run_key(self.run_id, "epochs/"))
        self.epoch = len(taken) + 1
        body = {"nonce": self.nonce, "accepts": []}
        if not self.root.create_once(self._key(f"epochs/{self.epoch:04d}.json"), _to_json(body)):
            raise RunConflict(f"another driver took over run {self.run_id} in this moment")
        return self.epoch

    def writer(self) -> BlockWriter:
        """What write tasks need."""
        return BlockWriter(self.root, self.run_id, self.epoch)

    def commits(self) -> list[Commit]:
        """Accepted commits in the order of their queries."""
        return [_to_commit(self.root.read(key) or b"", key) for key in self._commit_keys()]

    def committed_blocks(self) -> int:
        """How many commits there are; one listing, cheap enough to ask for progress."""
        return len(self._commit_keys())

    def finish(self, planned: int, totals: Mapping[str, Any]) -> dict[str, Any]:
        """Check that every planned query is covered once, list the files, create final.json.

        Raises:
            RunConflict: queries are missing or doubled, or the run was finished by another driver.
            StorageError: a listed file is not there in full.
        """
        commits = self.commits()
        check_coverage([commit.ranges for commit in commits], planned, self.run_id)
        files = [commit.results for commit in commits if commit.results]
        rejects = [commit.rejects for commit in commits if commit.rejects]
        for file in files + rejects:
            key = self._listed(asdict(file))
            if self.root.size(key) != file.bytes:
                raise StorageError(f"{key} is missing or has another size")
        final = {
            "state": "complete",
            "run_id": self.run_id,
            "job": self.spec["job"],
            "created": self.spec["created"],
            "epoch": self.epoch,
            "results": [asdict(file) for file in files],
            "reject_files": [asdict(file) for file in rejects],
            **totals,
        }
        if not self.root.create_once(self._key("final.json"), _to_json(final)):
            raise RunConflict(f"run {self.run_id} was finished or aborted by another driver")
        return final

    def final(self) -> dict[str, Any] | None:
        """final.json, or None while the run is not finished."""
        raw = self.root.read(self._key("final.json"))
        key = self._key("final.json")
        return None if raw is None else _from_json(raw, key, _FINAL_KEYS)

    def finished(self) -> dict[str, Any]:
        """final.json of a run that must be finished.

        Raises:
            RunConflict: it is not.
        """
        final = self.final()
        if final is None:
            raise RunConflict(f"run {self.run_id} is not finished")
        return final

    def publish(self) -> bool:
        """Make the run the latest of its job, unless a newer one is; says whether it was moved."""
        key = f"jobs/{self.spec['job']}/latest.json"
        mine = {"run_id": self.run_id, "created": self.spec["created"]}
        while True:
            current = self.root.read(key)
            if (
                current is not None
                and _from_json(current, key, _LATEST_KEYS)["created"] >= mine["created"]
            ):
                return False
            if self.root.swap(key, _to_json(mine), expected=current):
                return True

    def plan_path(self, block: int) -> str:
        """Path of a plan file."""
        return self.root.path(self._key(f"plan/{block:08d}.parquet"))

    def results_paths(self) -> list[str]:
        """Paths of the files that are the run, in the order of their queries.

        Raises:
            RunConflict: the run is not finished.
        """
        return [self.root.path(self._listed(file)) for file in self.finished()["results"]]

    def rejected_ids(self) -> set[str]:
        """Ids of the queries that the plan or a stage rejected."""
        keys = [self._listed(file) for file in (self.final() or {}).get("reject_files", [])]
        if self.root.size(self._key(_PLAN_REJECTS)) is not None:
            keys.append(self._key(_PLAN_REJECTS))
        ids: set[str] = set()
        for key in keys:
            ids |= set(pq.read_table(self.root.path(key))["query_id"].to_pylist())
        return ids - {None}

    def is_latest(self) -> bool:
        """Whether the job's latest.json names this run."""
        key = f"jobs/{self.spec['job']}/latest.json"
        raw = self.root.read(key)
        return raw is not None and _from_json(raw, key, _LATEST_KEYS)["run_id"] == self.run_id

    def _commit_keys(self) -> list[str]:
        prefix = self._key("commits/")
        return [k for k in self.root.list(prefix) if k.startswith(f"{prefix}{self.epoch:04d}-")]

    def _listed(self, file: Mapping[str, Any]) -> str:
        """Key of a file that final.json or a commit lists; it must lie in the run."""
        parts = str(file["key"]).split("/")
        if parts[0] not in ("data", "rejects") or len(parts) != 2 or ".." in parts:
            raise StorageError(f"run {self.run_id} lists {file['key']!r}, outside the run")
        return self._key(file["key"])

    def _key(self, name: str) -> str:
        return _run_key(self.run_id, name)

    def _publish(self, key: str, table: pa.Table) -> DataFile:
        return publish_parquet(self.root, _run_key(self.run_id, ""), key, table)


def latest_run(root: Root, job: str) -> Run:
    """The newest finished run of a job.

    Raises:
        RunConflict: the job has none.
    """
    raw = root.read(f"jobs/{job}/latest.json")
    if raw is None:
        raise RunConflict(f"job {job!r} has no finished run under {root.uri}")
    latest = _from_json(raw, f"jobs/{job}/latest.json", _LATEST_KEYS)
    return Run.open(root, latest["run_id"])


def latest_files(root: str, job: str) -> list[str]:
    """Parquet files of the newest finished run of a job: exactly those its final.json lists.

    Reading ``data/*.parquet`` instead would also catch files of unfinished blocks.

    Raises:
        RunConflict: the job has no finished run.
    """
    return latest_run(open_root(root), job).results_paths()


def list_runs(root: Root) -> list[str]:
    """Run ids, oldest first."""
    specs = [key for key in root.list("runs/") if key.endswith("/spec.json")]
    created = []
    for key in specs:
        spec = _from_json(root.read(key) or b"", key, _SPEC_KEYS)
        created.append((spec["created"], key.split("/")[1]))
    return [run_id for _, run_id in sorted(created)]


def publish_parquet(root: Root, prefix: str, key: str, table: pa.Table) -> DataFile:
    """Write a table to a local file, hash it, publish it and check that it arrived whole."""
    handle, name = tempfile.mkstemp(suffix=".parquet")
    os.close(handle)
    local = Path(name)
    try:
        pq.write_table(table, local, **_WRITER)
        file = DataFile(key, local.stat().st_size, sha256_file(local), table.num_rows)
        root.publish(prefix + key, local)
    finally:
        local.unlink(missing_ok=True)
    if root.size(prefix + key) != file.bytes:
        raise StorageError(f"{prefix + key} did not arrive whole")
    return file


def block_bounds(rows: int, block_rows: int) -> list[tuple[int, int]]:
    """Blocks of exactly ``block_rows``, the last of which takes the remainder as well.

    No block is smaller than ``block_rows`` unless it is the only one, so no executor has a reason
    to put two of them together.
    """
    blocks = max(1, rows // block_rows)
    edges = [number * block_rows for number in range(blocks)] + [rows]
    return list(itertools.pairwise(edges))


def as_ranges(qidx: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges that cover exactly the given numbers."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(qidx):
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges


def check_coverage(covered: Sequence[Sequence[tuple[int, int]]], planned: int, run_id: str) -> None:
    """Every number from 0 to ``planned`` exactly once, or `RunConflict` with the first fault."""
    expected = 0
    for start, stop in sorted((a, b) for ranges in covered for a, b in ranges):
        if start > expected:
            raise RunConflict(f"run {run_id}: queries {expected} to {start - 1} are missing")
        if start < expected:
            raise RunConflict(f"run {run_id}: queries from {start} are there twice")
        expected = stop
    if expected > planned:
        raise RunConflict(f"run {run_id}: queries from {planned} are beyond the plan")
    if expected < planned:
        raise RunConflict(f"run {run_id}: queries {expected} to {planned - 1} are missing")


def describe_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """Field by field what differs between two nested mappings; empty when nothing does."""
    parts = []
    for key in sorted({*old, *new}):
        a, b = _plain(old.get(key)), _plain(new.get(key))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if inner := describe_differences(a, b, f"{prefix}{key}."):
                parts.append(inner)
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and a != b:
            at = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
            parts.append(f"{prefix}{key}[{at}] was {_brief(a[at])}, is {_brief(b[at])}")
        elif a != b:
            parts.append(f"{prefix}{key} was {_brief(a)}, is {_brief(b)}")
    return "; ".join(parts)


def total(commits: Sequence[Commit], what: str) -> dict[str, float]:
    """Sums of ``sums``, ``seconds`` or ``reject_reasons`` over commits, exactly rounded."""
    parts: dict[str, list[float]] = {}
    for commit in commits:
        for name, value in getattr(commit, what).items():
            parts.setdefault(name, []).append(value)
    return {name: math.fsum(values) for name, values in sorted(parts.items())}


def content_digest(paths: Sequence[str]) -> str:
    """sha256 over the rows of Parquet files, whatever the names of the files."""
    checksum = hashlib.sha256()
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            checksum.update(_to_json(row))
    return checksum.hexdigest()


def _count(rejects: pa.Table) -> dict[str, int]:
    counts: dict[str, int] = {}
    if rejects.num_rows:
        schema.check(rejects, schema.REJECTS, "rejects of a block")
        for row in rejects.to_pylist():
            counts[row["reason"]] = counts.get(row["reason"], 0) + row["rows"]
    return counts


def _check_run_id(run_id: str) -> None:
    if not RUN_ID.match(run_id):
        raise ConfigError(
            f"{run_id!r} is not a run id: lower-case letters, digits, '-' and '_', 64 at most"
        )


def _run_key(run_id: str, name: str) -> str:
    return f"runs/{run_id}/{name}"


def _to_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str, indent=1).encode()


def _from_json(raw: bytes, where: str, required: Sequence[str] = ()) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{where} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(f"{where} is damaged: it holds no object")
    if missing := [key for key in required if key not in value]:
        raise StorageError(f"{where} is damaged: it lacks {', '.join(missing)}")
    return value


def _to_commit(raw: bytes, where: str) -> Commit:
    value = _from_json(raw, where)
    try:
        for name in ("results", "rejects"):
            value[name] = DataFile(**value[name]) if value[name] else None
        value["ranges"] = [(int(a), int(b)) for a, b in value["ranges"]]
        return Commit(**value)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{where} is damaged: {error}") from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
