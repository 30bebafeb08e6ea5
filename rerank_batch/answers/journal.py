"""What an LLM wrote and was paid for, kept under the root: no prompt is paid for twice.

    answers/<run id>-<sha256>.parquet

An entry is one object, written once under a name that holds its sha256 and the run it was paid for.
Runs share them: lists that are the same in the next run make the same prompts and cost nothing. Of
a prompt no more is kept than its sha256; of the reply its text, which the judge's prompt is made
of, and what was billed. A reply may tell what was asked: it is as private as the queries in the
runs beside it. Without the folder nothing breaks, and answers are paid for again.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.errors import StorageError
from rerank_batch.run import new_nonce
from rerank_batch.services.spending import Usage
from rerank_batch.storage import Root, sha256_file

FOLDER = "answers/"

_ENTRY_REPLIES = 32
_ENTRY_SECONDS = 5.0
_NOTE = b"rerank_batch"
_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("text", pa.string())])


@dataclass(frozen=True)
class _Written:
    """A reply that waits to be kept; without ``text`` it had none."""

    key: str
    text: str | None
    used: Usage
    cost: float


class Journal:
    """All replies of the root in memory; new ones are written a few at a time.

    Raises:
        StorageError: an entry is not what it was when it was written.
    """

    def __init__(self, root: Root, run_id: str) -> None:
        self._root, self._run_id = root, run_id
        self._known: dict[str, str | None] = {}
        self._waiting: list[_Written] = []
        self._since = time.monotonic()
        self.spent = 0.0
        for key in sorted(root.sizes(FOLDER)):
            paid_for, table, cost = self._read(key)
            self._known.update(
                zip(table.column("key").to_pylist(), table.column("text").to_pylist(), strict=True)
            )
            self.spent += cost if paid_for == run_id else 0.0

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> str | None:
        return self._known[key]

    def add(self, key: str, text: str | None, used: Usage, cost: float) -> None:
        """Take a reply; it is kept with the next `keep` or `flush`."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(_Written(key, text, used, cost))
        self._known[key] = text
        self.spent += cost

    def keep(self) -> None:
        """Write what waits if it is enough or has waited long enough."""
        late = time.monotonic() - self._since > _ENTRY_SECONDS
        if len(self._waiting) >= _ENTRY_REPLIES or (self._waiting and late):
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        used = sum((reply.used for reply in self._waiting), Usage())
        cost = sum(reply.cost for reply in self._waiting)
        note = {"used": asdict(used), "cost": cost, "nonce": new_nonce()}
        columns = [
            pa.array([reply.key for reply in self._waiting], pa.string()),
            pa.array([reply.text for reply in self._waiting], pa.string()),
        ]
        table = pa.table(columns, schema=_SCHEMA.with_metadata({_NOTE: json.dumps(note).encode()}))
        with tempfile.TemporaryDirectory(prefix="answers-") as folder:
            file = Path(folder) / "entry.parquet"
            pq.write_table(table, file)
            self._root.publish(f"{FOLDER}{self._run_id}-{sha256_file(file)}.parquet", file)
        self._waiting = []

    def _read(self, key: str) -> tuple[str, pa.Table, float]:
        raw = self._root.read(key) or b""
        run_id, _, sha256 = Path(key).stem.rpartition("-")
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise StorageError(
                f"{key} under {self._root.uri} is damaged: what it holds was paid for. Restore it, "
                "or delete it to pay for its answers again"
            )
        table = pq.read_table(pa.BufferReader(raw))
        return run_id, table, float(json.loads(table.schema.metadata[_NOTE])["cost"])


def key_of(version: str, body: Mapping[str, Any]) -> str:
    """sha256 of the prompt's version and of all that is sent: model, settings, every text."""
    whole = json.dumps([version, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()
