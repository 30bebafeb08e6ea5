"""A block that has passed every stage is written, summed and committed."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch import schema
from rerank_batch.errors import RerankBatchError
from rerank_batch.runs import BlockWriter
from rerank_batch.schema import JsonObject
from rerank_batch.storage import DataFile


@dataclass(frozen=True)
class BlockDone:
    """A block that is committed: how many queries it holds, and the log rows it rejected.

    Also its first query, the sums of its commit, and the rejected rows by reason.
    """

    queries: int
    rejected_rows: int
    start: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    reject_reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "BlockDone":
        """What `commit_block` says of it."""
        sums, reasons = json.loads(row["sums"]), json.loads(row["reject_reasons"])
        return cls(row["queries"], row["rejected_rows"], row["start"], sums, reasons)


Sums = Callable[[pa.Table], dict[str, float]]
"""What is summed over a block for its commit; gets the block as the last stage left it."""


def commit_block(
    block: pa.Table, writer: BlockWriter, keep: bool, sums: Sums | None = None
) -> pa.Table:
    """Write and commit a block; may run more than once for a block, which counts once."""
    block = block.sort_by(schema.QIDX)
    qidx = block.column(schema.QIDX).to_numpy()
    start, stop = int(qidx[0]), int(qidx[-1]) + 1
    if not np.array_equal(qidx, np.arange(start, stop)):
        raise RerankBatchError(
            f"a block holds {len(np.unique(qidx))} of the queries {start} to {stop - 1}, "
            f"in {len(qidx)} rows"
        )
    texts = block.column(schema.SIDE).drop_null().to_pylist()
    notes = [note for text in texts for note in json.loads(text)]
    totals = {**(sums or sums_of)(block), **_total(notes, "sums")}
    scores = [DataFile(**file) for note in notes for file in note["scores"]]
    good = block.filter(pc.is_null(block.column(schema.REJECT)))
    bad = block.filter(pc.is_valid(block.column(schema.REJECT)))
    rejects = pa.table(
        [
            bad.column(schema.QIDX),
            bad.column("query_id"),
            bad.column(schema.REJECT),
            pc.list_value_length(bad.column("query_ids")).cast(pa.int64()),
            bad.column(schema.QUERY) if keep else pa.nulls(bad.num_rows, pa.string()),
        ],
        schema=schema.REJECTS,
    )
    results = good.drop_columns([schema.SIDE, schema.REJECT])
    seconds, counts = _total(notes, "seconds"), _total(notes, "counts")
    commit = writer.write(start, stop, results, rejects, totals, seconds, counts, scores)
    return pa.table(
        {
            "start": pa.array([start], pa.int64()),
            "queries": pa.array([stop - start], pa.int64()),
            "rejected_rows": pa.array([sum(commit.reject_reasons.values())], pa.int64()),
            "sums": pa.array([json.dumps(commit.sums)], pa.string()),
            "reject_reasons": pa.array([json.dumps(commit.reject_reasons)], pa.string()),
        }
    )


def _total(notes: Iterable[JsonObject], what: str) -> dict[str, float]:
    """The sums of one mapping of the notes, name by name."""
    summed: dict[str, float] = {}
    for note in notes:
        for name, value in note[what].items():
            summed[name] = summed.get(name, 0.0) + value
    return summed


def sums_of(block: pa.Table) -> dict[str, float]:
    """What a commit carries so that totals and means need no second pass over the rows.

    ``judged`` counts queries with judgements, rejected ones too: they score 0 in every mean.
    """
    written = block.filter(pc.is_null(block.column(schema.REJECT)))
    sums = {
        "queries": float(written.num_rows),
        "weight": float(pc.sum(written.column("weight")).as_py() or 0),
        "pairs": float(pc.sum(pc.list_value_length(written.column("candidates"))).as_py() or 0),
        "judged": float(block.num_rows - block.column("metrics").null_count),
    }
    for flags in written.column(schema.FLAGS).to_pylist():
        for flag in flags:
            sums[f"flag.{flag}"] = sums.get(f"flag.{flag}", 0.0) + 1
    for row in block.column("metrics").to_pylist():
        for system, values in (row or {}).items():
            for name, value in values.items():
                key = f"{system}/{name}"
                sums[key] = sums.get(key, 0.0) + value
    return sums
