"""Writes blocks of results and commits them, from any process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rerank_batch import schema
from rerank_batch.errors import (
    RerankBatchError,
    StorageError,
)
from rerank_batch.runs.epochs import refuse_if_taken_over
from rerank_batch.runs.objects import (
    Commit,
    CommitName,
    run_key,
)
from rerank_batch.runs.parquet import publish_parquet
from rerank_batch.storage import DataFile, Root, new_nonce


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


def _count(rejects: pa.Table) -> dict[str, int]:
    counts: dict[str, int] = {}
    if rejects.num_rows:
        schema.check(rejects, schema.REJECTS, "rejects of a block")
        for row in rejects.to_pylist():
            counts[row["reason"]] = counts.get(row["reason"], 0) + row["rows"]
    return counts
