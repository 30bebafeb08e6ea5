"""The sources of retrieval as stages need them, and the lists of one that is given."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import Config, ExcludeConfig, GivenConfig, Source, digest
from rerank_batch.data.id_matches import unmatched_documents
from rerank_batch.data.lines import read_text_lines
from rerank_batch.data.parquet import ParquetTable, fingerprint_files
from rerank_batch.data.trec import SUFFIXES, Ranking, read_run
from rerank_batch.data.values import as_ids
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.index.index import Index
from rerank_batch.remarks import Remark
from rerank_batch.retrieval.fusion import Found, Fusion
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.storage import input_files
from rerank_batch.storage.text_streams import with_packed

_NAMED = 5
_WHAT = "retrieval.given"
_EXCLUDE = "retrieval.exclude"
_ID_SUFFIXES = (".parquet", *with_packed(".txt"))


@dataclass(frozen=True)
class Given:
    """The lists of the source ``given`` by query id, and what identifies them."""

    lists: Mapping[str, Found]
    fingerprint: str


@dataclass(frozen=True)
class Excluded:
    """Documents that no source may give, by number; how many ids of the list are none of the
    corpus; what identifies the list; and what looks wrong about it."""

    documents: tuple[int, ...] = ()
    unknown: int = 0
    fingerprint: str | None = None
    remarks: tuple[Remark, ...] = ()


def read_excluded(config: Config, index: Index) -> Excluded:
    """The documents of ``retrieval.exclude``.

    An id that is not in the corpus is counted: it may be that of a document that is gone already.

    Raises:
        InputError: no such file or column.
    """
    exclude = config.retrieval.exclude
    if exclude is None:
        return Excluded()
    ids = _read_ids(exclude)
    numbers = index.texts().numbers(ids)
    known = tuple(numbers[numbers >= 0].tolist())
    remarks = unmatched_documents(_EXCLUDE, "ids of the list", ids, index.texts())
    return Excluded(known, len(ids) - len(known), digest(ids), tuple(remarks))


def _read_ids(exclude: ExcludeConfig) -> list[str]:
    """The distinct ids of a list, in order."""
    files = input_files(exclude.path, _ID_SUFFIXES, _EXCLUDE)
    if files[0].kind != "parquet":
        if exclude.id is not None:
            raise ConfigError(f"{_EXCLUDE}.id is a column of Parquet; {exclude.path} is text")
        lines = (line.strip(" \t") for file in files for _, line in read_text_lines(file, _EXCLUDE))
        return sorted({line for line in lines if line})
    table = ParquetTable(exclude.path, _EXCLUDE)
    column = table.column(exclude.id, "doc_id", "_id", "id") or ""
    ids: set[str] = set()
    for batch in table.batches({"doc_id": column}):
        found, bad = as_ids(batch.column("doc_id"), f"{_EXCLUDE}: ids")
        if pc.any(bad).as_py():
            raise InputError(
                f"{_EXCLUDE}: {column!r} of {exclude.path} holds an id that is not UTF-8 text, and "
                "its document would stay; mend the list"
            )
        ids.update(each for each in found.to_pylist() if each)
    return sorted(ids)


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
        lists[query] = Found(
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
    found: list[list[str | None] | None] = []
    begin = 0
    for length in pc.list_value_length(lists).to_pylist():
        found.append(None if length is None else ids[begin : begin + length])
        begin += length or 0
    return found


def source_use(
    config: Config, source: Source, depth: int, given: Given | None, excluded: Excluded
) -> SourceUse:
    """A source of the configuration, to a depth."""
    if source == "given":
        return SourceUse(source, depth, given=given.lists if given else None)
    use = SourceUse(source, depth, excluded=excluded.documents)
    if source == "dense":
        use = replace(use, nprobe=config.index.nprobe, ef_search=config.index.ef_search)
    return use


def fusion_of(config: Config) -> Fusion | None:
    """How the sources of the configuration are fused; None where there is one."""
    sources = config.retrieval.sources
    return Fusion.of(config.retrieval.fusion, sources) if len(sources) > 1 else None
