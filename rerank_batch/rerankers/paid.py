"""A scorer that is a service, with a memory of what it was paid for.

Every answer is kept under the run as soon as it is there, whether or not its block is ever
committed: a run that stops at its cap, or dies, pays for no answer twice. An entry of this journal
is one object, written once under a name that holds its sha256; what a run has spent is the sum of
its entries.

    runs/<id>/paid/<stage>-<sha256>.parquet
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import tally
from rerank_batch.config import PriceConfig
from rerank_batch.errors import StorageError
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import (
    NO_SCORES,
    Answer,
    PairScores,
    QueryScores,
    ServiceScorer,
)
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage
from rerank_batch.storage import Root, new_nonce, sha256_file

_ENTRY_ANSWERS = 64
_ENTRY_SECONDS = 10.0

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float32()), nullable=False),
        pa.field("truncated", pa.list_(pa.bool_()), nullable=False),
        pa.field("fell_back", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class PaidUse:
    """Where a run keeps what it pays for, and what it may spend; small and picklable.

    ``prefix`` is the key of the run with a slash behind it, ``stage`` the number of the service in
    the cascade.
    """

    root: Root
    prefix: str
    stage: int
    price: PriceConfig | None = None
    cap: float | None = None


@dataclass(frozen=True)
class PaidEntry:
    """An entry of the journal: what was used for its answers, and the money that was then."""

    stage: int
    used: Usage
    cost: float
    answers: pa.Table


class PaidScorer:
    """Asks for what the journal does not know; holds the answers of its run in memory."""

    def __init__(self, service: ServiceScorer, use: PaidUse) -> None:
        self._service = service
        self._use = use
        self._budget = Budget(use.price, use.cap)
        self._read: set[str] = set()
        self._known: dict[str, QueryScores] = {}

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`.

        Raises:
            SpendCapReached, ServiceError: answers that came before are in the journal.
        """
        self._catch_up()
        keys = [_key(query, listed) for query, listed in zip(queries, documents, strict=True)]
        missing: dict[str, int] = {}
        for number, (key, listed) in enumerate(zip(keys, documents, strict=True)):
            if listed and key not in self._known:
                missing.setdefault(key, number)
        numbers = list(missing.values())
        progress.known(sum(map(len, documents)) - sum(len(documents[n]) for n in numbers))
        answers = self._service.answers(
            [queries[n] for n in numbers], [documents[n] for n in numbers], self._budget
        )
        self._keep(answers, [keys[n] for n in numbers])
        scores = [
            self._known[key] if listed else NO_SCORES
            for key, listed in zip(keys, documents, strict=True)
        ]
        return PairScores(
            [each.values for each in scores],
            [each.truncated for each in scores],
            frozenset(number for number, each in enumerate(scores) if each.fell_back),
        )

    def _catch_up(self) -> None:
        """Read the entries that are new: of earlier attempts, and of other services of the run."""
        for key, entry in read_journal(self._use.root, self._use.prefix, self._read):
            self._read.add(key)
            self._budget.count(entry.cost)
            if entry.stage == self._use.stage:
                self._known.update(_answers(entry.answers))

    def _keep(self, answers: Iterator[Answer], keys: Sequence[str]) -> None:
        """Write answers to the journal, some at a time, and the last ones whatever ends them."""
        waiting: list[Answer] = []
        since = time.monotonic()
        try:
            for answer in answers:
                waiting.append(answer)
                progress.scored(len(answer.values))
                if len(waiting) == _ENTRY_ANSWERS or time.monotonic() - since > _ENTRY_SECONDS:
                    self._write(waiting, keys)
                    waiting, since = [], time.monotonic()
        finally:
            if waiting:
                self._write(waiting, keys)

    def _write(self, answers: Sequence[Answer], keys: Sequence[str]) -> None:
        used = sum((answer.used for answer in answers), Usage())
        cost = used.cost(self._use.price or PriceConfig())
        note = {"used": asdict(used), "cost": cost, "nonce": new_nonce()}
        columns = [
            pa.array([keys[answer.query] for answer in answers], pa.string()),
            pa.array([answer.values for answer in answers], pa.list_(pa.float32())),
            pa.array([answer.truncated for answer in answers], pa.list_(pa.bool_())),
            pa.array([answer.fell_back for answer in answers], pa.bool_()),
        ]
        table = pa.table(columns, schema=_SCHEMA.with_metadata({_NOTE: json.dumps(note).encode()}))
        with tempfile.TemporaryDirectory(prefix="paid-") as folder:
            file = Path(folder) / "entry.parquet"
            pq.write_table(table, file)
            key = f"{self._use.prefix}paid/{self._use.stage}-{sha256_file(file)}.parquet"
            self._use.root.publish(key, file)
        tally.add(f"{tally.SPENT}.{self._use.stage}", cost)
        # Its cost was settled in this budget as the calls were made.
        self._read.add(key)
        self._known.update(_answers(table))


def read_journal(
    root: Root, prefix: str, known: frozenset[str] | set[str] = frozenset()
) -> Iterator[tuple[str, PaidEntry]]:
    """The entries of a run under their keys, but for those that are known.

    Raises:
        StorageError: one is not what it was when it was written.
    """
    for key in sorted(root.sizes(f"{prefix}paid/")):
        if key in known:
            continue
        raw = root.read(key) or b""
        stage, _, sha256 = Path(key).stem.partition("-")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise StorageError(
                f"{key} under {root.uri} is damaged: what it holds was paid for. Restore it, or "
                "delete it to pay for its answers again"
            )
        table = pq.read_table(pa.BufferReader(raw))
        note = json.loads(table.schema.metadata[_NOTE])
        yield key, PaidEntry(int(stage), Usage(**note["used"]), note["cost"], table)


_NOTE = b"rerank_batch"


def _answers(table: pa.Table) -> dict[str, QueryScores]:
    return {
        row["key"]: QueryScores(
            np.array(row["values"], np.float32), np.array(row["truncated"], bool), row["fell_back"]
        )
        for row in table.to_pylist()
    }


def _key(query: str, documents: Sequence[str]) -> str:
    """A query with its documents in their order: of a listwise reranker each may change all."""
    whole = json.dumps([query, *documents], ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()
