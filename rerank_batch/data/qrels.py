"""Relevance judgements: Parquet, jsonl, tsv or TREC qrels in; query -> document -> grade out."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa

from rerank_batch.config import QrelsConfig
from rerank_batch.data.lines import read_jsonl, read_text_lines
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.values import as_ids, json_id
from rerank_batch.errors import InputError
from rerank_batch.storage import InputFile, input_files
from rerank_batch.storage.layouts import SUFFIXES as LAYOUT_SUFFIXES

SUFFIXES = LAYOUT_SUFFIXES["qrels"]

Qrels = dict[str, dict[str, int]]
Grades = dict[str, int]
Places = tuple[int, int, int]
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
    return config.format == "parquet" or (config.format == "auto" and file.kind == "parquet")


def _read_parquet(config: QrelsConfig, qrels: Qrels) -> None:
    table = ParquetTable(config.path, "qrels")
    _refuse_several_splits(table, config)
    columns = {role: table.column(None, *names) for role, names in COLUMNS.items()}
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


def _refuse_several_splits(table: ParquetTable, config: QrelsConfig) -> None:
    """Merged, the judgements of several splits are those of no evaluation."""
    if _SPLIT not in table.columns or any(column == _SPLIT for column, _, _ in config.filter):
        return
    splits: set[str] = set()
    for batch in table.batches({_SPLIT: _SPLIT}, config.filter):
        splits.update(map(str, batch.column(_SPLIT).unique().to_pylist()))
    if len(splits) > 1:
        first = sorted(splits)
        raise InputError(
            f"qrels: {config.path} holds judgements of several splits ({', '.join(first[:8])}); "
            f"choose one with qrels.filter: [[{_SPLIT}, ==, {first[-1]}]]"
        )


def _read_text(file: InputFile, format: str, qrels: Qrels) -> None:
    """Lines of judgements; a first line that names the columns says which is which."""
    lines = ((number, line) for number, line in read_text_lines(file, "qrels") if line.strip())
    places: Places | None = None
    width = 0
    for count, (number, line) in enumerate(lines):
        where = f"{file} line {number}"
        if count == 0 and format != "trec":
            if line.lstrip().startswith("{"):
                _read_json(file, qrels)
                return
            heading = _fields(line, line.count("\t") + 1)
            places, width = _places(heading), len(heading)
            if places is not None:
                continue
        fields = _fields(line, width if places else 0)
        if places is None:
            query, document, grade = _plain(fields, format, line, where)
        elif len(fields) != width:
            raise InputError(
                f"qrels: {where} has {len(fields)} fields, the heading {width}: {line[:80]!r}"
            )
        else:
            query, document, grade = (fields[place] for place in places)
        _judge(qrels, query, document, grade, where)


def _fields(line: str, width: int) -> list[str]:
    """The fields between tabs, where there are as many; between blanks elsewhere."""
    tabs = line.count("\t")
    is_tabbed = tabs in (2, 3) or (tabs > 0 and tabs == width - 1)
    return [field.strip() for field in (line.split("\t") if is_tabbed else line.split())]


def _places(heading: Sequence[str]) -> Places | None:
    """Where the query, the document and the grade stand by a heading; None where it is none."""
    names = [name.lower() for name in heading]
    found = []
    for known in COLUMNS.values():
        places = [names.index(name) for name in known if name in names]
        if not places:
            return None
        found.append(places[0])
    query, document, grade = found
    return query, document, grade


def _plain(fields: list[str], format: str, line: str, where: str) -> tuple[str, str, str]:
    """The judgement of a line of a file without a heading."""
    expected = {"beir": (3,), "trec": (4,)}.get(format, (3, 4))
    if len(fields) not in expected or not _NUMBER.fullmatch(fields[-1]):
        raise InputError(
            f"qrels: {where} is neither 'query document grade' (BEIR) nor "
            f"'query 0 document grade' (TREC): {line[:80]!r}"
        )
    return fields[0], fields[-2], fields[-1]


def _read_json(file: InputFile, qrels: Qrels) -> None:
    for number, row in enumerate(read_jsonl(file, "qrels"), start=1):
        where = f"{file} judgement {number}"
        keys = {role: next((n for n in names if n in row), "") for role, names in COLUMNS.items()}
        if lacking := [COLUMNS[role] for role, key in keys.items() if not key]:
            raise InputError(
                f"qrels: {where} lacks {' or '.join(lacking[0])}; it has {', '.join(row)}"
            )
        try:
            query, document = (_id(row[keys[role]]) for role in ("query_id", "doc_id"))
        except ValueError as error:
            raise InputError(f"qrels: {where}: an id {error}") from None
        _judge(qrels, query, document, row[keys["relevance"]], where)


def _id(value: object) -> str | None:
    raw = json_id(value)
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("holds half a character") from None


def _judge(
    qrels: Qrels, query: str | None, document: str | None, grade: object, where: str
) -> None:
    if not query or not document or grade is None:
        raise InputError(f"qrels: {where} has a judgement with an empty field")
    value = _whole(grade)
    if value is None:
        raise InputError(
            f"qrels: {where} grades document {document} for query {query} as "
            f"{str(grade)[:_SHOWN]}, which is no integer"
        )
    if abs(value) > _LARGEST:
        raise InputError(
            f"qrels: {where} grades document {document} for query {query} beyond {_LARGEST:,}; "
            "grades are small whole numbers"
        )
    grades = qrels.setdefault(query, {})
    if grades.setdefault(document, value) != value:
        raise InputError(
            f"qrels: {where} judges document {document} for query {query} as {value}, "
            f"earlier as {grades[document]}"
        )


def _whole(grade: object) -> int | None:
    """The whole number that a grade is, 1.0 and "1.0" included; None where it is none."""
    if isinstance(grade, str):
        grade = Decimal(grade.strip()) if _NUMBER.fullmatch(grade.strip()) else None
    if isinstance(grade, bool) or not isinstance(grade, (int, float, Decimal)):
        return None
    number = Decimal(grade)
    if not number.is_finite():
        return None
    if abs(number) > _LARGEST:
        return _LARGEST + 1  # however many digits it has
    return int(number) if number == int(number) else None


COLUMNS = {
    "query_id": ("query_id", "query-id", "qid"),
    "doc_id": ("doc_id", "doc-id", "corpus_id", "corpus-id", "docid"),
    "relevance": ("relevance", "score", "grade", "rel"),
}
"""The names that the columns of judgements have, in headings, in Parquet and in jsonl."""

_NONE: Mapping[str, int] = {}
_SPLIT = "split"
_LARGEST = 2**31 - 1
"""The largest grade: grades travel as int32."""
_SHOWN = 40
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?")
