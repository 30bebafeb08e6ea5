"""The lists of the source ``given``, read from a run file or from Parquet."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import Config, GivenConfig, digest
from rerank_batch.data.parquet import ParquetTable, fingerprint_files
from rerank_batch.data.trec import SUFFIXES, Ranking, read_run
from rerank_batch.data.values import as_ids
from rerank_batch.errors import InputError
from rerank_batch.index.open import Index
from rerank_batch.retrieval.excluded import Excluded
from rerank_batch.retrieval.hits import RankedList

_NAMED = 5
_WHAT = "retrieval.given"


@dataclass(frozen=True)
class Given:
    """The lists of the source ``given`` by query id, and what identifies them."""

    lists: Mapping[str, RankedList]
    fingerprint: str


def read_given(config: Config, index: Index, excluded: Excluded) -> Given | None:
    """The lists that the configuration gives as a source; None where it gives none.

    Raises:
        InputError: no such file, or one with documents that are not in the corpus.
    """
    given = config.retrieval.given
    if given is None or "given" not in config.retrieval.sources:
        return None
    path = given.trec or given.parquet or ""
    rankings = read_run(path) if given.trec else _read_lists(path, given)
    ids = sorted({document for ranking in rankings.values() for document, _ in ranking})
    numbers = dict(zip(ids, index.texts().numbers(ids).tolist(), strict=True))
    if unknown := [each for each in ids if numbers[each] < 0]:
        raise InputError(
            f"{_WHAT}: {len(unknown):,} of the {len(ids):,} documents of {path} are not in the "
            f"corpus, first {', '.join(unknown[:_NAMED])}"
        )
    left_out = set(excluded.documents)
    lists = {}
    for query, ranking in rankings.items():
        kept = [(numbers[name], score) for name, score in ranking if numbers[name] not in left_out]
        lists[query] = RankedList(
            np.array([number for number, _ in kept], np.int64),
            np.array([score for _, score in kept], np.float32),
        )
    files = fingerprint_files(path, SUFFIXES if given.trec else (".parquet",), _WHAT)
    return Given(lists, digest([files, given.id, given.documents]))


def _read_lists(path: str, given: GivenConfig) -> dict[str, Ranking]:
    """Rankings by query from a Parquet column of lists; rows without a list are passed over."""
    table = ParquetTable(path, _WHAT)
    columns = {
        "query": table.column(given.id, "query_id", "_id", "id") or "",
        "documents": table.column(given.documents, "doc_ids") or "",
    }
    rankings: dict[str, Ranking] = {}
    for batch in table.batches(columns):
        kind = batch.schema.field("documents").type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(f"{_WHAT}: {columns['documents']!r} of {path} is {kind}, not a list")
        queries, _ = as_ids(batch.column("query"), f"{_WHAT}: query ids")
        for query, documents in zip(
            queries.to_pylist(), _ids_in_lists(batch.column("documents")), strict=True
        ):
            if query is None or not documents:
                continue
            ranking = [(each, -float(n)) for n, each in enumerate(documents) if each is not None]
            if len(ranking) < len(documents):
                raise InputError(f"{_WHAT}: {path} has a list of query {query} with a missing id")
            if len({document for document, _ in ranking}) < len(ranking):
                raise InputError(f"{_WHAT}: {path} lists a document of query {query} twice")
            if rankings.setdefault(query, ranking) != ranking:
                raise InputError(f"{_WHAT}: {path} has two different lists for query {query}")
    return rankings


def _ids_in_lists(lists: pa.Array) -> list[list[str | None] | None]:
    """The ids of a column of lists; an id that is no UTF-8 is missing."""
    ids = as_ids(lists.flatten(), f"{_WHAT}: document ids")[0].to_pylist()
    lists_of_ids: list[list[str | None] | None] = []
    begin = 0
    for length in pc.list_value_length(lists).to_pylist():
        lists_of_ids.append(None if length is None else ids[begin : begin + length])
        begin += length or 0
    return lists_of_ids
