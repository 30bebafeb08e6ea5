"""The lists that travel with a block from one group of shards to the next.

They stand in the column ``retrievals`` (see `schema.SEARCHED`): of every query one list for each
search, best first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema
from rerank_batch.retrieval.hits import RankedList


def merged(one: RankedList, other: RankedList, depth: int) -> RankedList:
    """The best ``depth`` of two lists without common documents, under the total order."""
    documents = np.concatenate([one.documents, other.documents])
    scores = np.concatenate([one.scores, other.scores])
    best = ranking.order(scores, documents)[:depth]
    return RankedList(documents[best], scores[best])


def lists_of(table: pa.Table) -> list[list[RankedList]]:
    """Of every row the lists so far; none where no search was made yet."""
    if schema.RETRIEVALS not in table.column_names:
        return [[] for _ in range(table.num_rows)]
    column = table.column(schema.RETRIEVALS).combine_chunks()
    structs = column.flatten()
    documents = schema.split_lists(structs.field(schema.DOCUMENTS), np.int64)
    scores = schema.split_lists(structs.field(schema.RETRIEVAL_SCORES), np.float32)
    ranked = [RankedList(d, s) for d, s in zip(documents, scores, strict=True)]
    ends = np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return [ranked[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def with_lists(table: pa.Table, lists: Sequence[Sequence[RankedList]]) -> pa.Table:
    """The table with these lists in the place of those that it had."""
    flat = [ranked for row in lists for ranked in row]
    columns = [
        _joined([ranked.documents for ranked in flat], np.int64),
        _joined([ranked.scores for ranked in flat], np.float32),
    ]
    structs = pa.StructArray.from_arrays(columns, [schema.DOCUMENTS, schema.RETRIEVAL_SCORES])
    column = pa.ListArray.from_arrays(_offsets([len(row) for row in lists]), structs)
    column = column.cast(schema.SEARCHED.field(schema.RETRIEVALS).type)
    if schema.RETRIEVALS in table.column_names:
        place = table.column_names.index(schema.RETRIEVALS)
        return table.set_column(place, schema.RETRIEVALS, column)
    return table.append_column(schema.RETRIEVALS, column)


def _joined(parts: Sequence[NDArray[Any]], kind: type) -> pa.ListArray:
    flat = np.concatenate([np.empty(0, kind), *parts])
    return pa.ListArray.from_arrays(_offsets([len(part) for part in parts]), pa.array(flat))


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
