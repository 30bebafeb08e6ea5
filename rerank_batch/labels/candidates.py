"""The candidates of a finished run, looked up by query: what a label run mines in.

Files of a run are in the order of their query ids, so a few queries in a row are found in one file
or two. Knows the rows of `schema.results`, not what is made of them.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rerank_batch.runs import Run
from rerank_batch.storage import open_file

_OPEN_FILES = 2
_AT_ONCE = 8


@dataclass(frozen=True)
class Candidates:
    """A query's documents in the order of retrieval.

    ``scores`` is float32, NaN where the last reranker did not read the document.
    """

    doc_ids: list[str]
    scores: NDArray[np.float32]


NOTHING = Candidates([], np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class CandidateSource:
    """Where the candidates of a run are: its files and the first query id of each.

    ``has_stages``: of a cascade it is the score of its last stage that counts.
    """

    files: tuple[str, ...]
    firsts: tuple[str, ...]
    has_stages: bool = False

    @classmethod
    def of(cls, run: Run) -> "CandidateSource":
        """The files of a finished run.

        Raises:
            RunConflict: the run is not complete.
        """
        files = run.results_paths()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            firsts = list(pool.map(_first_id, files))
        return cls(tuple(files), tuple(firsts), has_stages=len(run.spec.cascade) > 1)

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of all files, one file at a time."""
        for file in self.files:
            yield _read(file, columns)


class CandidateReader:
    """Looks queries up in the files of a run; keeps the last files it has read."""

    def __init__(self, source: CandidateSource) -> None:
        self._source = source
        self._tables: OrderedDict[int, tuple[dict[str, int], pa.Table]] = OrderedDict()

    def of(self, query_ids: Sequence[str]) -> list[Candidates]:
        """The candidates of each query, in the order given; `NOTHING` for one the run has not."""
        found = [NOTHING] * len(query_ids)
        by_file: dict[int, list[int]] = {}
        for position, query_id in enumerate(query_ids):
            file = bisect_right(self._source.firsts, query_id) - 1
            if file >= 0:
                by_file.setdefault(file, []).append(position)
        for file, positions in by_file.items():
            rows, table = self._open(file)
            there = [(p, rows[query_ids[p]]) for p in positions if query_ids[p] in rows]
            taken = table.take(pa.array([row for _, row in there], pa.int64()))
            listed = candidates_of(taken.column("candidates"), self._source.has_stages)
            for (position, _), candidates in zip(there, listed, strict=True):
                found[position] = candidates
        return found

    def _open(self, file: int) -> tuple[dict[str, int], pa.Table]:
        if file not in self._tables:
            while len(self._tables) >= _OPEN_FILES:
                self._tables.popitem(last=False)
            table = _read(self._source.files[file], ["query_id", "candidates"])
            ids = table.column("query_id").to_pylist()
            self._tables[file] = ({query_id: row for row, query_id in enumerate(ids)}, table)
        self._tables.move_to_end(file)
        return self._tables[file]


def candidates_of(column: pa.ChunkedArray, has_stages: bool) -> list[Candidates]:
    """The candidates of every row of a ``candidates`` column."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # of no rows
        return []
    hits = pc.list_flatten(lists)
    ids = pc.struct_field(hits, "doc_id").to_pylist()
    scores = (
        _last_stage(pc.struct_field(hits, "stage_scores"))
        if has_stages
        else pc.struct_field(hits, "score")
    )
    values = pc.fill_null(scores, np.float32("nan")).to_numpy(zero_copy_only=False)
    ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    starts = np.concatenate([[0], ends[:-1]]).astype(int)
    return [
        Candidates(ids[start:end], values[start:end].astype(np.float32))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _last_stage(stage_scores: pa.Array) -> pa.Array:
    lasts = [scores[-1] if scores else None for scores in stage_scores.to_pylist()]
    return pa.array(lasts, pa.float32())


def _read(file: str, columns: Sequence[str]) -> pa.Table:
    with open_file(file) as source:
        return pq.read_table(source, columns=list(columns), page_checksum_verification=True)


def _first_id(file: str) -> Any:
    with open_file(file) as source:
        batch = next(pq.ParquetFile(source).iter_batches(batch_size=1, columns=["query_id"]))
        return batch.column("query_id")[0].as_py()
