"""The sources of retrieval as stages need them, and the lists of one that is given."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rerank_batch.config import Config, GivenConfig, Source, digest
from rerank_batch.errors import InputError
from rerank_batch.retrieval.fusion import Found, Fusion
from rerank_batch.retrieval.index import Index
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.tables import ParquetTable, as_strings, fingerprint_files
from rerank_batch.trec_run import SUFFIXES, Ranking, read_run

_NAMED = 5
_WHAT = "retrieval.given"


@dataclass(frozen=True)
class Given:
    """The lists of the source ``given`` by query id, and what identifies them."""

    lists: Mapping[str, Found]
    fingerprint: str


def read_given(config: Config, index: Index) -> Given | None:
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
    lists = {
        query: Found(
            np.array([numbers[document] for document, _ in ranking], np.int64),
            np.array([score for _, score in ranking], np.float32),
        )
        for query, ranking in rankings.items()
    }
    files = fingerprint_files(path, SUFFIXES if given.trec else (".parquet",), _WHAT)
    return Given(lists, digest([files, given.id, given.documents]))


def _read_lists(path: str, given: GivenConfig) -> dict[str, Ranking]:
    """Rankings by query from a Parquet column of lists; rows without a list are passed over."""
    table = ParquetTable(path, _WHAT)
    columns = {
        "query": table.column(given.id, "query_id", "_id") or "",
        "documents": table.column(given.documents, "doc_ids") or "",
    }
    rankings: dict[str, Ranking] = {}
    for batch in table.batches(columns):
        kind = batch.schema.field("documents").type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(f"{_WHAT}: {columns['documents']!r} of {path} is {kind}, not a list")
        queries, _ = as_strings(batch.column("query"))
        for query, documents in zip(
            queries.to_pylist(), batch.column("documents").to_pylist(), strict=True
        ):
            if query is None or not documents:
                continue
            ranking = [(str(document), -float(n)) for n, document in enumerate(documents)]
            if len({document for document, _ in ranking}) < len(ranking):
                raise InputError(f"{_WHAT}: {path} lists a document of query {query} twice")
            if rankings.setdefault(query, ranking) != ranking:
                raise InputError(f"{_WHAT}: {path} has two different lists for query {query}")
    return rankings


def source_use(config: Config, source: Source, depth: int, given: Given | None) -> SourceUse:
    """A source of the configuration, to a depth."""
    if source == "dense":
        return SourceUse(source, depth, config.index.nprobe, config.index.ef_search)
    return SourceUse(source, depth, given=given.lists if given and source == "given" else None)


def fusion_of(config: Config) -> Fusion | None:
    """How the sources of the configuration are fused; None where there is one."""
    sources = config.retrieval.sources
    return Fusion.of(config.retrieval.fusion, sources) if len(sources) > 1 else None
