"""Relevance judgements: Parquet, BEIR tsv or TREC qrels in; query -> document -> grade out."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from rerank_batch.config import QrelsConfig
from rerank_batch.errors import InputError
from rerank_batch.storage import InputFile, input_files
from rerank_batch.tables import ParquetTable
from rerank_batch.text_files import read_text_lines
from rerank_batch.text_streams import with_packed
from rerank_batch.text_values import as_ids

SUFFIXES = (".parquet", *with_packed(".tsv", ".qrels", ".txt"))

Qrels = dict[str, dict[str, int]]
Grades = dict[str, int]
Judgements = Mapping[str, Mapping[str, int]]
"""What judgements are to those who only look them up."""


def read_qrels(config: QrelsConfig) -> Qrels:
    """Read judgements; a pair judged twice with different grades is refused.

    Raises:
        InputError: missing, damaged or contradictory judgements.
    """
    files = input_files(config.path, SUFFIXES, "qrels")
    qrels: Qrels = {}
    if _is_parquet(config, files[0]):
        _read_parquet(config, qrels)
    elif config.filter:
        raise InputError("qrels: filter works on Parquet judgements, not on text files")
    else:
        for file in files:
            _read_text(file, config.format, qrels)
    if not qrels:
        raise InputError(f"qrels: {config.path} holds no judgements")
    return qrels


class CompactQrels(Mapping[str, Mapping[str, int]]):
    """Judgements in a few flat arrays, some 40 bytes each: what travels to workers.

    Arrow arrays in Ray's object store are mapped and not copied, so that a node holds them once.
    """

    def __init__(self, qrels: Judgements) -> None:
        ids = sorted(qrels)
        listed = [qrels[query] for query in ids]
        self._ids = pa.array(ids, pa.large_string())
        self._ends = np.cumsum([0, *map(len, listed)])
        self._documents = pa.array((d for grades in listed for d in grades), pa.large_string())
        self._grades = np.fromiter((g for grades in listed for g in grades.values()), np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids.to_pylist())

    def __getitem__(self, query: str) -> Mapping[str, int]:
        place = bisect_left(range(len(self)), query, key=lambda i: str(self._ids[i].as_py()))
        if place == len(self) or self._ids[place].as_py() != query:
            raise KeyError(query)
        start, stop = int(self._ends[place]), int(self._ends[place + 1])
        documents = self._documents.slice(start, stop - start).to_pylist()
        return dict(zip(documents, self._grades[start:stop].tolist(), strict=True))


def merge_grades(qrels: Judgements, query_ids: list[str]) -> Grades | None:
    """Judgements of a query under all its ids, the higher grade where they differ."""
    merged: Grades | None = None
    for query_id in query_ids:
        for document, grade in qrels.get(query_id, _NONE).items():
            merged = merged if merged is not None else {}
            merged[document] = max(grade, merged.get(document, grade))
    return merged


def _is_parquet(config: QrelsConfig, file: InputFile) -> bool:
    named = file.name.endswith(".parquet")
    return config.format == "parquet" or (config.format == "auto" and named)


def _read_parquet(config: QrelsConfig, qrels: Qrels) -> None:
    table = ParquetTable(config.path, "qrels")
    columns = {name: table.column(None, name, hub) for name, hub in _COLUMNS.items()}
    for batch in table.batches({n: c for n, c in columns.items() if c}, config.filter):
        queries, _ = as_ids(batch.column("query_id"), "qrels: query ids")
        documents, _ = as_ids(batch.column("doc_id"), "qrels: document ids")
        rows = zip(
            queries.to_pylist(),
            documents.to_pylist(),
            batch.column("relevance").to_pylist(),
            strict=True,
        )
        for query, document, grade in rows:
            _judge(qrels, query, document, grade, config.path)


def _read_text(file: InputFile, format: str, qrels: Qrels) -> None:
    for number, line in read_text_lines(file, "qrels"):
        fields = line.split("\t") if line.count("\t") in (2, 3) else line.split()
        heading = number == 1 and format != "trec" and [f.strip() for f in fields] == _HEADING
        if not line.strip() or heading:
            continue
        where = f"{file} line {number}"
        expected = {"beir": (3,), "trec": (4,)}.get(format, (3, 4))
        if len(fields) not in expected or not _is_integer(fields[-1]):
            raise InputError(
                f"qrels: {where} is neither 'query document grade' (BEIR) nor "
                f"'query 0 document grade' (TREC): {line[:80]!r}"
            )
        grade = int(fields[-1]) if len(fields[-1]) <= _DIGITS else _MOST + 1
        _judge(qrels, fields[0].strip(), fields[-2].strip(), grade, where)


def _judge(
    qrels: Qrels, query: str | None, document: str | None, grade: object, where: str
) -> None:
    if not query or not document or grade is None:
        raise InputError(f"qrels: {where} has a judgement with an empty field")
    whole = isinstance(grade, int) or (isinstance(grade, float) and grade.is_integer())
    if not whole:
        raise InputError(
            f"qrels: {where} grades document {document} for query {query} as {grade!r}, "
            "which is no integer"
        )
    value = int(grade)  # type: ignore[call-overload]
    if abs(value) > _MOST:
        raise InputError(
            f"qrels: {where} grades document {document} for query {query} beyond {_MOST:,}; grades "
            "are small whole numbers"
        )
    grades = qrels.setdefault(query, {})
    if grades.setdefault(document, value) != value:
        raise InputError(
            f"qrels: {where} judges document {document} for query {query} as {value}, "
            f"earlier as {grades[document]}"
        )


def _is_integer(text: str) -> bool:
    return text.isascii() and text.strip().removeprefix("-").isdigit()


_MOST = 2**31 - 1
"""The largest grade: grades travel as int32."""
_DIGITS = 100
_NONE: Mapping[str, int] = {}
_COLUMNS = {"query_id": "query-id", "doc_id": "corpus-id", "relevance": "score"}
_HEADING = list(_COLUMNS.values())
