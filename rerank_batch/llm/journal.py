"""What an LLM wrote and was paid for, kept under the root: no prompt is paid for twice.

    answers/<run id>-<sha256>.parquet

An entry is one object, written once under a name that holds its sha256 and the run it was paid for.
Runs share them: lists that are the same in the next run make the same prompts and cost nothing. Of
a prompt no more is kept than its sha256; of the reply its text, which another prompt may be made
of, whether it was cut, and what was billed. A reply may tell what was asked: it is as private as
the queries in the runs beside it. Without the folder nothing breaks, and replies are paid for
again.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.errors import StorageError
from rerank_batch.schema import JsonObject
from rerank_batch.services.usage import Usage
from rerank_batch.storage import Root, new_nonce, sha256_file

FOLDER = "answers/"

_ENTRY_REPLIES = 32
_ENTRY_SECONDS = 5.0
_NOTE = b"rerank_batch"
_AT_ONCE = 8
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("cut", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class StoredReply:
    """A reply: its text, None where it had none, and whether it was cut where it got too long."""

    text: str | None
    cut: bool = False


@dataclass(frozen=True)
class _UnwrittenReply:
    """A reply that waits to be written."""

    key: str
    reply: StoredReply
    used: Usage
    cost: float


class Journal:
    """All replies of the root in memory; new ones are written a few at a time.

    ``spent`` and ``used`` are what those took that were paid for under this ``run_id``, which may
    be any name that stays the same from one attempt to the next.

    Raises:
        StorageError: an entry is not what it was when it was written.
    """

    def __init__(self, root: Root, run_id: str) -> None:
        self._root, self._run_id = root, run_id
        self._known: dict[str, StoredReply] = {}
        self._waiting: list[_UnwrittenReply] = []
        self._since = time.monotonic()
        self.spent = 0.0
        self.used = Usage()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for paid_for, table, note in pool.map(self._read, sorted(root.sizes(FOLDER))):
                self._known.update(_replies(table))
                if paid_for == run_id:
                    self.spent += float(note["cost"])
                    self.used += Usage(**note["used"])

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> StoredReply:
        return self._known[key]

    def add(self, key: str, reply: StoredReply, used: Usage, cost: float) -> None:
        """Take a reply; it is kept with the next `keep` or `flush`."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(_UnwrittenReply(key, reply, used, cost))
        self._known[key] = reply
        self.spent += cost
        self.used += used

    def keep(self) -> None:
        """Write what waits if it is enough or has waited long enough."""
        late = time.monotonic() - self._since > _ENTRY_SECONDS
        if len(self._waiting) >= _ENTRY_REPLIES or (self._waiting and late):
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        used = sum((each.used for each in self._waiting), Usage())
        cost = sum(each.cost for each in self._waiting)
        note = {"used": asdict(used), "cost": cost, "nonce": new_nonce()}
        columns = [
            pa.array([each.key for each in self._waiting], pa.string()),
            pa.array([each.reply.text for each in self._waiting], pa.string()),
            pa.array([each.reply.cut for each in self._waiting], pa.bool_()),
        ]
        table = pa.table(columns, schema=_SCHEMA.with_metadata({_NOTE: json.dumps(note).encode()}))
        with tempfile.TemporaryDirectory(prefix="answers-") as folder:
            file = Path(folder) / "entry.parquet"
            pq.write_table(table, file)
            self._root.publish(f"{FOLDER}{self._run_id}-{sha256_file(file)}.parquet", file)
        self._waiting = []

    def _read(self, key: str) -> tuple[str, pa.Table, JsonObject]:
        raw = self._root.read(key) or b""
        run_id, _, sha256 = Path(key).stem.rpartition("-")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise StorageError(
                f"{key} under {self._root.uri} is damaged: what it holds was paid for. Restore it, "
                "or delete it to pay for its answers again"
            )
        table = pq.read_table(pa.BufferReader(raw))
        return run_id, table, json.loads(table.schema.metadata[_NOTE])


def _replies(table: pa.Table) -> Iterator[tuple[str, StoredReply]]:
    """The replies of an entry; the first entries ever written did not say whether one was cut."""
    for row in table.to_pylist():
        yield row["key"], StoredReply(row["text"], bool(row.get("cut")))


def key_of(version: str, body: Mapping[str, Any]) -> str:
    """sha256 of the prompt's version and of all that is sent: model, settings, every text."""
    whole = json.dumps([version, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()
