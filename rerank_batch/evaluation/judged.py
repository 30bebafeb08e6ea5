"""The judged queries of a finished run, block by block: their candidates beside the grades.

Knows the rows of `schema.results`; knows no measure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from rerank_batch.qrels import Qrels, merge_grades
from rerank_batch.storage import open_file


@dataclass(frozen=True)
class JudgedQuery:
    """A query with its ``candidates`` in the order of retrieval and what it was judged."""

    query_id: str
    text: str
    grades: dict[str, int]
    candidates: list[dict[str, Any]]

    def retrieval(self) -> list[str]:
        """Ids in the order of retrieval."""
        return [hit["doc_id"] for hit in self.candidates]

    def reranked(self, depth: int | None = None) -> list[str]:
        """Ids as a reranker that reads ``depth`` candidates would leave them; by default the run's.

        The first ``depth`` come in the run's own order of them, the others stay where they were.
        """
        listed = sorted(self.candidates[:depth], key=lambda hit: hit["rank"])
        rest = [] if depth is None else self.candidates[depth:]
        return [hit["doc_id"] for hit in [*listed, *rest]]


def judged_blocks(paths: Sequence[str], qrels: Qrels) -> Iterator[list[JudgedQuery]]:
    """The judged queries of the result files ``paths``, some hundreds at a time."""
    columns = ["query_id", "query_ids", "query", "candidates"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(batch_size=1024, columns=columns):
            yield [
                JudgedQuery(row["query_id"], row["query"], grades, row["candidates"])
                for row in batch.to_pylist()
                if (grades := merge_grades(qrels, row["query_ids"])) is not None
            ]
