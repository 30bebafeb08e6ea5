"""Which pairs of a run are judged, and which of them twice."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.labels.candidates import CandidateSource

_COLUMNS = ("query_id", "query_ids", "query", "candidates")


@dataclass(frozen=True)
class ToJudge:
    """A query of the run, every id it stands for, and the documents to judge, the best first."""

    query_id: str
    query_ids: tuple[str, ...]
    text: str
    doc_ids: tuple[str, ...]


def queries_to_judge(source: CandidateSource, depth: int) -> Iterator[ToJudge]:
    """Every query of a run with the first ``depth`` of its final ranking: reranked where a reranker
    ran, else as retrieved."""
    for table in source.tables(_COLUMNS):
        rows = table.select(_COLUMNS[:-1]).to_pylist()
        for row, doc_ids in zip(rows, _first(table.column("candidates"), depth), strict=True):
            yield ToJudge(row["query_id"], tuple(row["query_ids"]), row["query"], doc_ids)


def wants_second_opinion(seed: int, query_id: str, doc_id: str, share: float) -> bool:
    """Whether a pair is among the ``share`` that is judged twice; it depends on nothing else."""
    digest = hashlib.blake2b(f"{seed}\0twice\0{query_id}\0{doc_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") < share * 2**64


def _first(column: pa.ChunkedArray, depth: int) -> Iterator[tuple[str, ...]]:
    for lists in column.chunks:
        hits = pc.list_flatten(lists)
        ids = pc.struct_field(hits, "doc_id").to_pylist()
        ranks = pc.struct_field(hits, "rank").to_numpy(zero_copy_only=False)
        ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False)).tolist()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            places = np.argsort(ranks[start:end], kind="stable")[:depth]
            yield tuple(ids[start + place] for place in places.tolist())
