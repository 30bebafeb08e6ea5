"""A run as its driver and its readers see it; the package says what its objects are.

Knows Parquet files and JSON objects, not what is in the rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from rerank_batch import schema
from rerank_batch.config import RUN_ID
from rerank_batch.errors import (
    InputsChanged,
    RunConflict,
    StorageError,
)
from rerank_batch.runs.coverage import Done, block_bounds, check_coverage
from rerank_batch.runs.epochs import Epoch, newest_epoch, read_epoch, refuse_if_taken_over
from rerank_batch.runs.lease import Lease, Owner, living_owner
from rerank_batch.runs.objects import (
    PLAN_REJECTS,
    Commit,
    CommitName,
    check_run_id,
    describe_differences,
    epoch_key,
    from_json,
    plan_key,
    run_key,
    to_json,
)
from rerank_batch.runs.parquet import parse_parquet, publish_parquet, read_block
from rerank_batch.runs.spec import PROTOCOL, RunSpec
from rerank_batch.runs.writer import BlockWriter
from rerank_batch.schema import JsonObject
from rerank_batch.storage import DataFile, Root, new_nonce

COMPLETE, ABORTED = "complete", "aborted"

_FINAL_KEYS = ("state", "run_id", "job", "created", "results", "reject_files", "commits")
_AT_ONCE = 16


@dataclass
class Run:
    """A run as its driver sees it; see the module for the objects."""

    root: Root
    run_id: str
    spec: RunSpec
    epoch: int = 0
    owner: Owner = field(default_factory=Owner.me)
    _accepted: tuple[CommitName, ...] = ()
    _read: dict[CommitName, Commit] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Root, run_id: str, spec: RunSpec) -> "Run":
        """Create the run's spec.

        Raises:
            ConfigError: the id is not one.
            RunConflict: the id is taken; the message says by what.
        """
        check_run_id(run_id)
        run = cls(root, run_id, replace(spec, protocol=PROTOCOL, nonce=new_nonce()))
        if not root.create_once(run_key(run_id, "spec.json"), to_json(run.spec.to_json())):
            other = cls.open(root, run_id)
            other.check_made_of(run.spec.made_of)
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
        spec = RunSpec.from_json(raw, f"{run_id}/spec.json")
        if spec.protocol != PROTOCOL:
            raise RunConflict(
                f"run {run_id} follows protocol {spec.protocol}, this version {PROTOCOL}; "
                "read it with the version that wrote it"
            )
        return cls(root, run_id, spec)

    def check_made_of(self, made_of: Mapping[str, Any]) -> None:
        """Refuse to go on with other inputs, models or settings than the run began with.

        Raises:
            InputsChanged: the message says field by field what differs.
        """
        if differs := describe_differences(self.spec.made_of, made_of):
            raise InputsChanged(
                f"run {self.run_id} under {self.root.uri} was begun with other inputs: {differs}; "
                "nothing was written. Choose another --run-id"
            )

    def write_plan(self, queries: pa.Table, rejects: pa.Table) -> None:
        """Write the plan, one file per block, and its rejects; files that are there stay.

        The same inputs give the same plan, so a resume fills in what a dead driver left out.
        """
        stored = self.root.sizes(self.key("plan/"))

        def write(number: int, start: int, stop: int) -> None:
            key = plan_key(number)
            if self.key(key) not in stored:
                publish_parquet(self.root, self.key(""), key, queries.slice(start, stop - start))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda block: write(block[0], *block[1]), enumerate(self.blocks())))
        if rejects.num_rows and self.root.size(self.key(PLAN_REJECTS)) is None:
            publish_parquet(self.root, self.key(""), PLAN_REJECTS, rejects)

    def blocks(self) -> list[tuple[int, int]]:
        """The blocks of the plan: one file, one pass through the stages, one commit."""
        return block_bounds(self.spec.planned, self.spec.block_rows)

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
        newest = newest_epoch(self.root, self.run_id)
        if newest and not take_over:
            owner = read_epoch(self.root, self.run_id, newest).owner
            key = self.key("lease.json")
            alive = living_owner(self.root, key, newest, owner, lease_seconds, note)
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
        epoch = Epoch(new_nonce(), self.owner, tuple(accepts))
        if not self.root.create_once(epoch_key(self.key(""), newest + 1), epoch.to_json()):
            raise RunConflict(
                f"run {self.run_id} is owned by another driver, which took it in this moment"
            )
        self.epoch, self._accepted = newest + 1, tuple(accepts)
        return self.epoch

    def last_owner(self) -> Owner | None:
        """Who drives the run, or drove it last."""
        newest = newest_epoch(self.root, self.run_id)
        return read_epoch(self.root, self.run_id, newest).owner if newest else None

    @contextmanager
    def lease(self, seconds: float, on_lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
        """Stay the run's visible owner while the block runs; see `Lease`."""
        key = self.key("lease.json")
        with Lease(self.root, key, self.epoch, self.owner, seconds, on_lost) as lease:
            yield lease

    def writer(self) -> BlockWriter:
        """What write tasks need."""
        return BlockWriter(self.root, self.run_id, self.epoch)

    def done(self) -> Done:
        """The bitmap of queries whose commits count."""
        done = Done(self.spec.planned)
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

    def finish(self, totals: Mapping[str, Any]) -> JsonObject:
        """Check that every planned query is covered once, list the files, create final.json.

        Raises:
            RunConflict: queries are missing or doubled, or another driver took the run over or
                finished it.
            StorageError: a listed file is not there in full.
        """
        commits = self.commits()
        bounds = [(commit.name.start, commit.name.stop) for commit in commits]
        check_coverage(bounds, self.spec.planned, self.run_id)
        sizes = {
            key: size
            for folder in ("data/", "rejects/")
            for key, size in self.root.sizes(self.key(folder)).items()
        }
        for stored in (file for commit in commits for file in commit.files):
            if sizes.get(self.listed(asdict(stored))) != stored.bytes:
                raise StorageError(f"{self.key(stored.key)} is missing or has another size")
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

    def abort(self) -> JsonObject:
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
        begin = tuple(self.key(name) for name in (*before_work, "cache-"))
        keys = self.root.sizes(self.key(""))
        first = self.epoch == newest_epoch(self.root, self.run_id) == 1
        return first and all(key.startswith(begin) for key in keys)

    def forget(self) -> None:
        """Remove a run that holds nothing (`holds_nothing`), so that its id is free again."""
        if self.holds_nothing():
            # The spec is the last of them: until then the run can be gone on with.
            spec = self.key("spec.json")
            self.root.delete([k for k in self.root.sizes(self.key("")) if k != spec])
            self.root.delete([spec])

    def final(self) -> JsonObject | None:
        """final.json, or None while the run is not finished."""
        key = self.key("final.json")
        raw = self.root.read(key)
        return None if raw is None else from_json(raw, key, _FINAL_KEYS)

    def state(self) -> str:
        """``unfinished``, ``complete`` or ``aborted``."""
        final = self.final()
        return final["state"] if final else "unfinished"

    def finished(self) -> JsonObject:
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
        return f"rerank-batch {self.spec.command} CONFIG --resume {self.run_id}"

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

    def listed(self, file: Mapping[str, Any]) -> str:
        """Key of a file that final.json or a commit lists; it must lie in the run."""
        parts = str(file["key"]).split("/")
        if parts[0] not in ("data", "rejects") or len(parts) != 2 or ".." in parts:
            raise StorageError(f"run {self.run_id} lists {file['key']!r}, outside the run")
        return self.key(file["key"])

    def _close(self, commits: Sequence[Commit], body: Mapping[str, Any]) -> JsonObject:
        final = {
            "run_id": self.run_id,
            "job": self.spec.job,
            "created": self.spec.created,
            "epoch": self.epoch,
            "commits": [str(commit.name) for commit in commits],
            "nonce": new_nonce(),
            **body,
        }
        if not self.root.create_once(self.key("final.json"), to_json(final)):
            raise RunConflict(f"run {self.run_id} was finished or aborted by another driver")
        return final

    def _plan_rejects(self) -> DataFile | None:
        raw = self.root.read(self.key(PLAN_REJECTS))
        if raw is None:
            return None
        rows = parse_parquet(raw, PLAN_REJECTS).num_rows
        return DataFile(PLAN_REJECTS, len(raw), hashlib.sha256(raw).hexdigest(), rows)

    def _counting(self, epoch: int) -> list[CommitName]:
        """Commits that count when ``epoch`` is the newest: accepted by it, or its own."""
        if not epoch:
            return []
        accepted = read_epoch(self.root, self.run_id, epoch).accepts
        own = [name for name in self._listed_commits() if name.epoch == epoch]
        return sorted({*accepted, *own})

    def _listed_commits(self) -> list[CommitName]:
        return [CommitName.parse(key) for key in self.root.sizes(self.key("commits/"))]

    def _commit(self, name: CommitName) -> Commit:
        key = self.key(name.key)
        return Commit.from_json(self.root.read(key) or b"", key)

    def key(self, name: str) -> str:
        """Key of an object of the run."""
        return run_key(self.run_id, name)


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
