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
any clock. A reader goes latest -> final -> files and never lists folders. Knows Parquet files and
JSON objects, not what is in the rows.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.config import RUN_ID
from rerank_batch.errors import (
    ConfigError,
    GuardsFailed,
    InputsChanged,
    RerankBatchError,
    RunConflict,
    StorageError,
)
from rerank_batch.runs.coverage import Done, block_bounds, check_coverage
from rerank_batch.runs.lease import Lease, Owner, living_owner, owner_from
from rerank_batch.runs.objects import (
    Commit,
    CommitName,
    describe_differences,
    epoch_key,
    from_json,
    to_json,
)
from rerank_batch.storage import DataFile, Root, new_nonce

PROTOCOL = 4
COMPLETE, ABORTED = "complete", "aborted"

_SPEC_KEYS = ("job", "created", "made_of", "planned", "block_rows", "protocol")
_FINAL_KEYS = ("state", "run_id", "job", "created", "results", "reject_files", "commits")
_LATEST_KEYS = ("run_id", "created")
_EPOCH_KEYS = ("nonce", "owner", "accepts")
_VERDICT_KEYS = ("passed", "guards")
_OVERRIDE_KEYS = ("who", "when")
_WRITER = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
_AT_ONCE = 16


@dataclass(frozen=True)
class BlockWriter:
    """Writes blocks for one epoch from any process; small and picklable."""

    root: Root
    run_id: str
    epoch: int

    def write(
        self,
        start: int,
        stop: int,
        results: pa.Table,
        rejects: pa.Table,
        sums: Mapping[str, float],
        seconds: Mapping[str, float],
        events: Mapping[str, float],
        scores: Sequence[DataFile] = (),
    ) -> Commit:
        """Publish queries ``start`` up to ``stop`` and commit them; the commit that counts.

        Where another attempt at the same block committed first, its commit is returned and the
        file written here is left unlisted.

        Raises:
            RunConflict: another driver has taken the run over.
        """
        rows = results.num_rows + rejects.num_rows
        if rows != stop - start:
            raise RerankBatchError(f"queries {start} to {stop - 1} came as {rows} rows")
        name = CommitName(start, stop, self.epoch)
        stem = f"{name}-{new_nonce()[:12]}.parquet"
        commit = Commit(
            name=name,
            nonce=new_nonce(),
            results=self._publish(f"data/{stem}", results),
            rejects=self._publish(f"rejects/{stem}", rejects),
            sums=dict(sums),
            reject_reasons=_count(rejects),
            seconds=dict(seconds),
            events=dict(events),
            scores=list(scores),
        )
        refuse_if_taken_over(self.root, self.run_id, self.epoch)
        key = run_key(self.run_id, name.key)
        if self.root.create_once(key, commit.to_json()):
            return commit
        winner = self.root.read(key)
        if winner is None:
            raise StorageError(f"{key} exists but cannot be read")
        return Commit.from_json(winner, key)

    def _publish(self, key: str, table: pa.Table) -> DataFile | None:
        if table.num_rows == 0:
            return None
        return publish_parquet(self.root, run_key(self.run_id, ""), key, table)


@dataclass
class Run:
    """A run as its driver sees it; see the module for the objects."""

    root: Root
    run_id: str
    spec: dict[str, Any]
    epoch: int = 0
    owner: Owner = field(default_factory=Owner.me)
    _accepted: tuple[CommitName, ...] = ()
    _read: dict[CommitName, Commit] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Root, run_id: str, spec: Mapping[str, Any]) -> "Run":
        """Create the run's spec.

        Raises:
            ConfigError: the id is not one.
            RunConflict: the id is taken; the message says by what.
        """
        check_run_id(run_id)
        run = cls(root, run_id, {**spec, "protocol": PROTOCOL, "nonce": new_nonce()})
        if not root.create_once(run_key(run_id, "spec.json"), to_json(run.spec)):
            other = cls.open(root, run_id)
            other.check_made_of(run.spec["made_of"])
            state, hint = other.state(), ""
            if state == "unfinished":
                owner = other.last_owner()
                state += f" and owned by {owner}" if owner else ""
                hint = f", or go on with --resume {run_id}"
            raise RunConflict(
                f"run {run_id} exists under {root.uri} ({state}, with the same inputs); "
                f"nothing was written. Choose another --run-id{hint}"
            )
        return run

    @classmethod
    def open(cls, root: Root, run_id: str) -> "Run":
        """An existing run.

        Raises:
            RunConflict: there is none, or another version wrote it.
        """
        check_run_id(run_id)
        raw = root.read(run_key(run_id, "spec.json"))
        if raw is None:
            known = ", ".join(list_runs(root)[-5:]) or "none"
            raise RunConflict(f"no run {run_id} under {root.uri}; newest runs: {known}")
        spec = from_json(raw, f"{run_id}/spec.json", _SPEC_KEYS)
        if spec["protocol"] != PROTOCOL:
            raise RunConflict(
                f"run {run_id} follows protocol {spec['protocol']}, this version {PROTOCOL}; "
                "read it with the version that wrote it"
            )
        return cls(root, run_id, spec)

    def check_made_of(self, made_of: Mapping[str, Any]) -> None:
        """Refuse to go on with other inputs, models or settings than the run began with.

        Raises:
            InputsChanged: the message says field by field what differs.
        """
        if differs := describe_differences(self.spec["made_of"], made_of):
            raise InputsChanged(
                f"run {self.run_id} under {self.root.uri} was begun with other inputs: {differs}; "
                "nothing was written. Choose another --run-id"
            )

    def write_plan(self, queries: pa.Table, rejects: pa.Table) -> None:
        """Write the plan, one file per block, and its rejects; files that are there stay.

        The same inputs give the same plan, so a resume fills in what a dead driver left out.
        """
        there = self.root.sizes(self._key("plan/"))

        def write(number: int, start: int, stop: int) -> None:
            key = _plan_key(number)
            if self._key(key) not in there:
                publish_parquet(self.root, self._key(""), key, queries.slice(start, stop - start))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda block: write(block[0], *block[1]), enumerate(self.blocks())))
        if rejects.num_rows and self.root.size(self._key(PLAN_REJECTS)) is None:
            publish_parquet(self.root, self._key(""), PLAN_REJECTS, rejects)

    def decide(self, what: Literal["mode", "cache"], stage: int, value: Mapping[str, Any]) -> None:
        """Keep what a stage of the cascade is to stay with to the run's end, unless that was
        decided before."""
        key = self._key(f"{what}-{stage}.json")
        self.root.create_once(key, to_json({**value, "nonce": new_nonce()}))

    def decided(
        self, what: Literal["mode", "cache"], stage: int, required: Sequence[str]
    ) -> dict[str, Any] | None:
        """What was decided first, which must hold those keys; None before."""
        key = self._key(f"{what}-{stage}.json")
        raw = self.root.read(key)
        return None if raw is None else from_json(raw, key, required)

    def blocks(self) -> list[tuple[int, int]]:
        """The blocks of the plan: one file, one pass through the stages, one commit."""
        return block_bounds(self.spec["planned"], self.spec["block_rows"])

    def claim(
        self,
        take_over: bool = False,
        lease_seconds: float = 20.0,
        note: Callable[[str], None] = lambda text: None,
    ) -> int:
        """Become the owner of the run's next epoch and return its number.

        Accepts every commit that counts so far and covers a whole block; others are done again.

        Raises:
            RunConflict: a living driver owns the run and ``take_over`` was not asked for, or
                another driver took the epoch first.
        """
        newest = self._newest_epoch()
        if newest and not take_over:
            named = self._epoch(newest)["owner"]
            key = self._key("lease.json")
            alive = living_owner(self.root, key, newest, named, lease_seconds, note)
            if alive is not None:
                raise RunConflict(
                    f"run {self.run_id} is owned by {alive}, which is alive. "
                    "Wait for it, or take the run from it with --take-over"
                )
        blocks = set(self.blocks())
        # One commit for a block, whatever a driver gone wrong may have left.
        whole = {
            (name.start, name.stop): name
            for name in self._counting(newest)
            if (name.start, name.stop) in blocks
        }
        accepts = sorted(whole.values())
        body = {
            "nonce": new_nonce(),
            "owner": asdict(self.owner),
            "accepts": [str(name) for name in accepts],
        }
        if not self.root.create_once(epoch_key(self._key(""), newest + 1), to_json(body)):
            raise RunConflict(
                f"run {self.run_id} is owned by another driver, which took it in this moment"
            )
        self.epoch, self._accepted = newest + 1, tuple(accepts)
        return self.epoch

    def last_owner(self) -> Owner | None:
        """Who drives the run, or drove it last."""
        newest = self._newest_epoch()
        return self._owner_of(newest) if newest else None

    @contextmanager
    def lease(self, seconds: float, on_lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
        """Stay the run's visible owner while the block runs; see `Lease`."""
        key = self._key("lease.json")
        with Lease(self.root, key, self.epoch, self.owner, seconds, on_lost) as lease:
            yield lease

    def writer(self) -> BlockWriter:
        """What write tasks need."""
        return BlockWriter(self.root, self.run_id, self.epoch)

    def done(self) -> Done:
        """The bitmap of queries whose commits count."""
        done = Done(self.spec["planned"])
        for name in self.counting():
            done.add(name.start, name.stop)
        return done

    def blocks_to_do(self, done: Done) -> list[int]:
        """Numbers of the blocks that are not wholly done; the files of the others stay unread."""
        return [n for n, bounds in enumerate(self.blocks()) if not done.covers(*bounds)]

    def counting(self) -> list[CommitName]:
        """The commits that count in this driver's epoch, in the order of their queries."""
        own = [name for name in self._listed_commits() if name.epoch == self.epoch]
        return sorted({*self._accepted, *own})

    def commits(self, names: Sequence[CommitName] | None = None) -> list[Commit]:
        """The commits that count, each read once; a missing one is damage."""
        wanted = self.counting() if names is None else names
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            new = [name for name in wanted if name not in self._read]
            self._read.update(zip(new, pool.map(self._commit, new), strict=True))
        return [self._read[name] for name in wanted]

    def finish(self, totals: Mapping[str, Any]) -> dict[str, Any]:
        """Check that every planned query is covered once, list the files, create final.json.

        Raises:
            RunConflict: queries are missing or doubled, or another driver took the run over or
                finished it.
            StorageError: a listed file is not there in full.
        """
        commits = self.commits()
        bounds = [(commit.name.start, commit.name.stop) for commit in commits]
        check_coverage(bounds, self.spec["planned"], self.run_id)
        there = {
            key: size
            for folder in ("data/", "rejects/")
            for key, size in self.root.sizes(self._key(folder)).items()
        }
        for stored in (file for commit in commits for file in commit.files):
            if there.get(self.listed(asdict(stored))) != stored.bytes:
                raise StorageError(f"{self._key(stored.key)} is missing or has another size")
        refuse_if_taken_over(self.root, self.run_id, self.epoch)
        return self._close(
            commits,
            {
                "state": COMPLETE,
                "results": [asdict(commit.results) for commit in commits if commit.results],
                "reject_files": [
                    *([asdict(file)] if (file := self._plan_rejects()) else []),
                    *[asdict(commit.rejects) for commit in commits if commit.rejects],
                ],
                **totals,
            },
        )

    def abort(self) -> dict[str, Any]:
        """Give the run up for good: take it over, so that a living driver stops, and close it.

        Raises:
            RunConflict: it is finished or aborted already.
        """
        if (state := self.state()) != "unfinished":
            raise RunConflict(f"run {self.run_id} is {state} already")
        self.claim(take_over=True)
        return self._close([], {"state": ABORTED, "results": [], "reject_files": []})

    def holds_nothing(self) -> bool:
        """Whether its first driver planned it, and nothing was computed or paid for since."""
        before_work = ("spec.json", "plan/", PLAN_REJECTS, "epochs/", "lease.json", "mode-")
        begin = tuple(self._key(name) for name in (*before_work, "cache-"))
        there = self.root.sizes(self._key(""))
        return self.epoch == self._newest_epoch() == 1 and all(k.startswith(begin) for k in there)

    def forget(self) -> None:
        """Remove a run that holds nothing (`holds_nothing`), so that its id is free again."""
        if self.holds_nothing():
            # The spec is the last of them: until then the run can be gone on with.
            spec = self._key("spec.json")
            self.root.delete([k for k in self.root.sizes(self._key("")) if k != spec])
            self.root.delete([spec])

    def final(self) -> dict[str, Any] | None:
        """final.json, or None while the run is not finished."""
        key = self._key("final.json")
        raw = self.root.read(key)
        return None if raw is None else from_json(raw, key, _FINAL_KEYS)

    def state(self) -> str:
        """``unfinished``, ``complete`` or ``aborted``."""
        final = self.final()
        return final["state"] if final else "unfinished"

    def finished(self) -> dict[str, Any]:
        """final.json of a run that must be complete.

        Raises:
            RunConflict: it is not.
        """
        final = self.final()
        if final is None:
            raise RunConflict(
                f"run {self.run_id} is not finished; go on with: {self.how_to_go_on()}"
            )
        if final["state"] != COMPLETE:
            raise RunConflict(f"run {self.run_id} was aborted: it holds no results")
        return final

    def how_to_go_on(self) -> str:
        """The command that goes on with the run."""
        return f"rerank-batch {self.spec.get('command', 'rerank')} CONFIG --resume {self.run_id}"

    def keep_verdict(self, passed: bool, found: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what the guards found, once and for all; returns what was found first."""
        body = {"passed": passed, **found, "nonce": new_nonce()}
        self.root.create_once(self._key("guards.json"), to_json(body))
        kept = self.verdict()
        if kept is None:
            raise StorageError(f"{self._key('guards.json')} cannot be read")
        return kept

    def verdict(self) -> dict[str, Any] | None:
        """What the guards found; None where they did not look yet, or there are none."""
        return self._object("guards.json", _VERDICT_KEYS)

    def overridden(self) -> dict[str, Any] | None:
        """Who published the run though it failed a guard, and when; None where nobody did."""
        return self._object("override.json", _OVERRIDE_KEYS)

    def override(self, who: str, when: str) -> None:
        """Let the run be published whatever its guards found, and keep who decided that."""
        body = {"who": who, "when": when, "nonce": new_nonce()}
        self.root.create_once(self._key("override.json"), to_json(body))

    def is_held_back(self) -> bool:
        """Whether a guard failed and nobody has overridden it."""
        verdict = self.verdict()
        return verdict is not None and not verdict["passed"] and self.overridden() is None

    def publish(self) -> bool:
        """Make the run the latest of its job, unless a newer one is; says whether it was moved.

        Raises:
            RunConflict: the run is not complete.
            GuardsFailed: it failed a guard, whoever tries; see `override`.
        """
        self.finished()
        if self.is_held_back():
            raise GuardsFailed(f"run {self.run_id} failed a guard and is not published")
        key = latest_key(self.spec["job"])
        mine = {"run_id": self.run_id, "created": self.spec["created"]}
        while True:
            current = self.root.read(key)
            if (
                current is not None
                and from_json(current, key, _LATEST_KEYS)["created"] >= mine["created"]
            ):
                return False
            if self.root.swap(key, to_json(mine), expected=current):
                return True

    def read_block(self, number: int) -> pa.Table:
        """A block of the plan; its page checksums are verified."""
        return read_block(self.root, self.run_id, number)

    def results_paths(self) -> list[str]:
        """Paths or URIs of the files that are the run, in the order of their queries.

        Raises:
            RunConflict: the run is not complete.
        """
        return [self.root.path(self.listed(file)) for file in self.finished()["results"]]

    def rejects(self) -> pa.Table:
        """Everything that was dropped, by the plan or by a stage: `schema.REJECTS`."""
        files = self.finished()["reject_files"]
        return pa.concat_tables(
            [schema.REJECTS.empty_table(), *[self.read_table(file) for file in files]]
        )

    def read_table(self, file: Mapping[str, Any]) -> pa.Table:
        """A listed file."""
        key = self.listed(file)
        raw = self.root.read(key)
        if raw is None:
            raise StorageError(f"{key} is missing")
        return parse_parquet(raw, key)

    def is_latest(self) -> bool:
        """Whether the job's latest.json names this run."""
        latest = read_latest(self.root, self.spec["job"])
        return latest is not None and latest["run_id"] == self.run_id

    def listed(self, file: Mapping[str, Any]) -> str:
        """Key of a file that final.json or a commit lists; it must lie in the run."""
        parts = str(file["key"]).split("/")
        if parts[0] not in ("data", "rejects") or len(parts) != 2 or ".." in parts:
            raise StorageError(f"run {self.run_id} lists {file['key']!r}, outside the run")
        return self._key(file["key"])

    def _close(self, commits: Sequence[Commit], body: Mapping[str, Any]) -> dict[str, Any]:
        final = {
            "run_id": self.run_id,
            "job": self.spec["job"],
            "created": self.spec["created"],
            "epoch": self.epoch,
            "commits": [str(commit.name) for commit in commits],
            "nonce": new_nonce(),
            **body,
        }
        if not self.root.create_once(self._key("final.json"), to_json(final)):
            raise RunConflict(f"run {self.run_id} was finished or aborted by another driver")
        return final

    def _plan_rejects(self) -> DataFile | None:
        raw = self.root.read(self._key(PLAN_REJECTS))
        if raw is None:
            return None
        rows = parse_parquet(raw, PLAN_REJECTS).num_rows
        return DataFile(PLAN_REJECTS, len(raw), hashlib.sha256(raw).hexdigest(), rows)

    def _newest_epoch(self) -> int:
        names = [Path(key).stem for key in self.root.sizes(self._key("epochs/"))]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _epoch(self, number: int) -> dict[str, Any]:
        key = epoch_key(self._key(""), number)
        raw = self.root.read(key)
        if raw is None:
            raise StorageError(f"{key} is missing")
        value = from_json(raw, key, _EPOCH_KEYS)
        try:
            value["accepts"] = [CommitName.parse(name) for name in value["accepts"]]
        except (StorageError, TypeError, AttributeError) as error:
            raise StorageError(f"{key} is damaged: {error}") from None
        return value

    def _owner_of(self, epoch: int) -> Owner:
        return owner_from(self._epoch(epoch)["owner"], epoch_key(self._key(""), epoch))

    def _counting(self, epoch: int) -> list[CommitName]:
        """Commits that count when ``epoch`` is the newest: accepted by it, or its own."""
        if not epoch:
            return []
        accepted = self._epoch(epoch)["accepts"]
        own = [name for name in self._listed_commits() if name.epoch == epoch]
        return sorted({*accepted, *own})

    def _listed_commits(self) -> list[CommitName]:
        return [CommitName.parse(key) for key in self.root.sizes(self._key("commits/"))]

    def _commit(self, name: CommitName) -> Commit:
        key = self._key(name.key)
        return Commit.from_json(self.root.read(key) or b"", key)

    def _object(self, name: str, required: Sequence[str]) -> dict[str, Any] | None:
        """An object that is written once, where it is there."""
        raw = self.root.read(self._key(name))
        return None if raw is None else from_json(raw, self._key(name), required)

    def _key(self, name: str) -> str:
        return run_key(self.run_id, name)


PLAN_REJECTS = "rejects/plan.parquet"


def refuse_if_taken_over(root: Root, run_id: str, epoch: int) -> None:
    """Stop a driver, or a worker that outlived its driver, whose run is somebody else's now.

    The epoch's list of accepted commits is what keeps results right; this only saves the work.

    Raises:
        RunConflict: a later epoch exists.
    """
    if root.size(epoch_key(run_key(run_id, ""), epoch + 1)) is not None:
        raise RunConflict(f"run {run_id} was taken over by another driver; this one stops")


def read_block(root: Root, run_id: str, number: int, expected: pa.Schema = schema.PLAN) -> pa.Table:
    """A block of a run's plan; one that says more of a query than `schema.PLAN` is ``expected``."""
    key = run_key(run_id, _plan_key(number))
    raw = root.read(key)
    if raw is None:
        raise StorageError(f"{key} is missing")
    return schema.check(parse_parquet(raw, key), expected, key)


def read_latest(root: Root, job: str) -> dict[str, Any] | None:
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


def is_begun(root: Root, run_id: str) -> bool:
    """Whether the run has its spec, whatever became of it since."""
    check_run_id(run_id)
    return root.size(run_key(run_id, "spec.json")) is not None


def list_runs(root: Root) -> list[str]:
    """Run ids, oldest first."""
    ids = [name for name in root.folders("runs/") if RUN_ID.match(name)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        specs = list(pool.map(lambda run_id: root.read(run_key(run_id, "spec.json")), ids))
    created = [
        (from_json(raw, run_key(run_id, "spec.json"), ("created",))["created"], run_id)
        for run_id, raw in zip(ids, specs, strict=True)
        if raw is not None
    ]
    return [run_id for _, run_id in sorted(created)]


def publish_parquet(
    root: Root, prefix: str, key: str, table: pa.Table | Iterable[pa.Table]
) -> DataFile:
    """Write a table, or at least one after the other, to a local file, publish it, and return what
    was stored.

    Raises:
        StorageError: the local disk or the root cannot be written.
    """
    handle, name = tempfile.mkstemp(suffix=".parquet")
    os.close(handle)
    local = Path(name)
    try:
        parts = iter([table] if isinstance(table, pa.Table) else table)
        first = next(parts)
        rows = 0
        with pq.ParquetWriter(local, first.schema, **_WRITER) as writer:
            for part in chain([first], parts):
                writer.write_table(part)
                rows += part.num_rows
        stored = root.publish(prefix + key, local)
    except OSError as error:
        raise StorageError(f"cannot write {key} to the local disk: {error}") from None
    finally:
        local.unlink(missing_ok=True)
    return DataFile(key, stored.bytes, stored.sha256, rows)


def parse_parquet(raw: bytes, where: str) -> pa.Table:
    """A Parquet file's table; `StorageError` where it is damaged."""
    try:
        return pq.read_table(pa.BufferReader(raw), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{where} is damaged: {error}") from None


def check_run_id(run_id: str) -> None:
    """Refuse what is no run id with `ConfigError`, before it becomes part of any key."""
    if not RUN_ID.match(run_id):
        raise ConfigError(
            f"{run_id!r} is not a run id: lower-case letters, digits, '-' and '_', 64 at most"
        )


def run_key(run_id: str, name: str) -> str:
    """Key of an object of a run."""
    return f"runs/{run_id}/{name}"


def latest_key(job: str) -> str:
    """Key of a job's pointer."""
    return f"jobs/{job}/latest.json"


def _plan_key(number: int) -> str:
    return f"plan/{number:08d}.parquet"


def _count(rejects: pa.Table) -> dict[str, int]:
    counts: dict[str, int] = {}
    if rejects.num_rows:
        schema.check(rejects, schema.REJECTS, "rejects of a block")
        for row in rejects.to_pylist():
            counts[row["reason"]] = counts.get(row["reason"], 0) + row["rows"]
    return counts
