"""The objects of a run: their keys, commits, and how JSON is written and read back.

An object that cannot be read is damage, never absence.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.config import RUN_ID
from rerank_batch.errors import ConfigError, StorageError
from rerank_batch.schema import JsonObject
from rerank_batch.storage import DataFile

PLAN_REJECTS = "rejects/plan.parquet"
"""Key, in its run, of the rows that the plan rejected."""


@dataclass(frozen=True, order=True)
class CommitName:
    """Queries ``start`` up to ``stop``, done in ``epoch``: all that a resume needs to know."""

    start: int
    stop: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.epoch:06d}-{self.start:012d}-{self.stop:012d}"

    @property
    def key(self) -> str:
        """Key of the commit object in its run."""
        return f"commits/{self}.json"

    @classmethod
    def parse(cls, text: str) -> "CommitName":
        """The name behind a key or what `str` made of it."""
        stem = text.rpartition("/")[2].removesuffix(".json")
        if not _NAME.match(stem):
            raise StorageError(f"{text!r} is no commit of a run")
        epoch, start, stop = map(int, stem.split("-"))
        return cls(start, stop, epoch)


_NAME = re.compile(r"\d{6}-\d{12}-\d{12}\Z")


@dataclass(frozen=True)
class Commit:
    """One block of queries, done: its files and everything that is summed over blocks.

    ``sums`` maps a name to a total, ``seconds`` a stage to the actor time that went into the block,
    ``events`` what happened on the way (batches retried, token budgets halved). ``scores`` are for
    the score cache: no result depends on those files.
    """

    name: CommitName
    nonce: str
    results: DataFile | None
    rejects: DataFile | None
    sums: dict[str, float]
    reject_reasons: dict[str, int]
    seconds: dict[str, float]
    events: dict[str, float]
    scores: list[DataFile]

    @property
    def files(self) -> list[DataFile]:
        """The files of results and rejects."""
        return [file for file in (self.results, self.rejects) if file]

    def to_json(self) -> bytes:
        """The commit object."""
        return to_json({**asdict(self), "name": str(self.name)})

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> "Commit":
        """A commit object read back.

        Raises:
            StorageError: it is damaged, or stands under another name than its own.
        """
        value = from_json(raw, where)
        try:
            for kind in ("results", "rejects"):
                value[kind] = DataFile(**value[kind]) if value[kind] else None
            value["scores"] = [DataFile(**file) for file in value["scores"]]
            value["name"] = CommitName.parse(value["name"])
            commit = cls(**value)
            rows = sum(file.rows for file in commit.files)
        except (KeyError, TypeError, ValueError, AttributeError, StorageError) as error:
            raise StorageError(f"{where} is damaged: {error}") from None
        if commit.name != CommitName.parse(where):
            raise StorageError(f"{where} is damaged: it holds the commit {commit.name}")
        if rows != commit.name.stop - commit.name.start:
            raise StorageError(f"{where} is damaged: its files hold {rows} queries")
        return commit


def total(commits: Sequence[Commit], what: str) -> dict[str, float]:
    """Sums of a mapping of the commits (``sums``, ``seconds``, …), exactly rounded."""
    parts: dict[str, list[float]] = {}
    for commit in commits:
        for name, value in getattr(commit, what).items():
            parts.setdefault(name, []).append(value)
    return {name: math.fsum(values) for name, values in sorted(parts.items())}


def to_json(value: object) -> bytes:
    """JSON of an object of a run."""
    return json.dumps(value, ensure_ascii=False, default=str, indent=1).encode()


def from_json(raw: bytes, where: str, required: Sequence[str] = ()) -> JsonObject:
    """An object read back; `StorageError` names it where it is damaged."""
    try:
        value = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{where} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise StorageError(f"{where} is damaged: it holds no object")
    if missing := [key for key in required if key not in value]:
        raise StorageError(f"{where} is damaged: it lacks {', '.join(missing)}")
    return value


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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def epoch_key(prefix: str, epoch: int) -> str:
    """Key of an epoch of the run whose keys begin with ``prefix``."""
    return f"{prefix}epochs/{epoch:06d}.json"


def plan_key(number: int) -> str:
    """Key, in its run, of a block of the plan."""
    return f"plan/{number:08d}.parquet"


def run_key(run_id: str, name: str) -> str:
    """Key of an object of a run."""
    return f"runs/{run_id}/{name}"


def latest_key(job: str) -> str:
    """Key of a job's pointer."""
    return f"jobs/{job}/latest.json"


def check_run_id(run_id: str) -> None:
    """Refuse what is no run id with `ConfigError`, before it becomes part of any key."""
    if not RUN_ID.match(run_id):
        raise ConfigError(
            f"{run_id!r} is not a run id: lower-case letters, digits, '-' and '_', 64 at most"
        )
