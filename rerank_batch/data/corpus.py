"""The corpus: reading documents, validating them and numbering them.

Documents are sorted by id and numbered from 0, so that a document number orders like its id (see
`ranking`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import USUAL, CorpusConfig
from rerank_batch.data.lines import read_jsonl
from rerank_batch.data.parquet import ParquetTable, fingerprint_files, first_of
from rerank_batch.data.table_schemas import is_text, plain
from rerank_batch.data.values import as_ids, as_strings, json_id, json_text
from rerank_batch.errors import InputError
from rerank_batch.remarks import LEFT_ALONE, Remark
from rerank_batch.storage import InputFile, input_files
from rerank_batch.storage.layouts import SUFFIXES as LAYOUT_SUFFIXES

SUFFIXES = LAYOUT_SUFFIXES["corpus"]
_IDS, _JSON_IDS = ("doc_id", "_id", "id"), ("_id", "doc_id", "id")
_COLUMNS = ("doc_id", "title", "text")
_SCHEMA = pa.schema([(name, pa.large_string()) for name in _COLUMNS])
_JSONL_ROWS = 10_000


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their ids, how many were dropped for which reason, and what looks
    wrong about the files."""

    documents: pa.Table  # doc_id, title, text: large_string; no nulls
    dropped: dict[str, int]
    remarks: tuple[Remark, ...] = ()


def corpus_fingerprint(config: CorpusConfig) -> dict[str, object]:
    """What identifies a corpus: the content of its files and how they are read.

    Columns count by the names that are read, whether they were given or found.

    Raises:
        InputError: nothing readable, or a column is not there.
    """
    if _is_jsonl(config):
        columns: Sequence[str | None] = _json_keys(config, _files(config)[0])
    else:
        columns = _columns(_table(config), config)
    return {
        "files": fingerprint_files(config.path, SUFFIXES, "corpus"),
        "columns": list(columns),
        "empty": config.empty,
    }


def read_corpus(config: CorpusConfig) -> Corpus:
    """Read, validate and sort the documents.

    A document with neither title nor text cannot be retrieved for what it says: it is dropped and
    counted, or an error with ``empty: error``. Invalid UTF-8 and missing ids are dropped and
    counted as well.

    Raises:
        InputError: nothing readable, a wrong column, repeated ids, or no document left.
    """
    parts: list[pa.Table] = []
    dropped: dict[str, int] = {}
    remarks: list[Remark] = []
    for ids, titles, texts in _raw_batches(config, remarks):
        part, reasons = _validate(ids, titles, texts)
        parts.append(part)
        for reason, count in reasons.items():
            dropped[reason] = dropped.get(reason, 0) + count
    documents = pa.concat_tables(parts) if parts else _SCHEMA.empty_table()
    if config.empty == "error" and dropped.get("empty_document"):
        raise InputError(
            f"corpus: {dropped['empty_document']} documents of {config.path} have no text; "
            "mend them, or set corpus.empty: drop"
        )
    if documents.num_rows == 0:
        raise InputError(
            f"corpus: {config.path} holds no document with text "
            f"({', '.join(f'{reason}: {count}' for reason, count in dropped.items()) or 'no rows'})"
        )
    documents = documents.sort_by("doc_id").combine_chunks()
    _refuse_repeated_ids(documents.column("doc_id"), config.path)
    return Corpus(documents, dropped, tuple(remarks))


def corpus_remarks(config: CorpusConfig) -> tuple[Remark, ...]:
    """What looks wrong about the columns of Parquet files; no row is read.

    Raises:
        InputError: see `read_corpus`.
    """
    if _is_jsonl(config):
        return ()
    table = _table(config)
    _columns(table, config)
    unread = _unread_title(table, config)
    return (*table.remarks, *([unread] if unread else ()))


def _raw_batches(
    config: CorpusConfig, remarks: list[Remark]
) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    if _is_jsonl(config):
        titled: set[str] = set()
        for file in (files := _files(config)):
            yield from _jsonl_batches(file, _json_keys(config, file), titled)
        remarks.extend(_files_without_titles(files, titled))
        return
    table = _table(config)
    columns = dict(zip(_COLUMNS, _columns(table, config), strict=True))
    for batch in table.batches({name: source for name, source in columns.items() if source}):
        empty = pa.nulls(batch.num_rows, pa.string())
        yield (
            batch.column("doc_id"),
            batch.column("title") if columns["title"] else empty,
            batch.column("text"),
        )
    remarks.extend(table.remarks)
    if columns["title"] is None and (unread := _unread_title(table, config)):
        remarks.append(unread)


def _is_jsonl(config: CorpusConfig) -> bool:
    files = _files(config)
    return config.format == "beir" or (config.format == "auto" and files[0].kind != "parquet")


def _files(config: CorpusConfig) -> list[InputFile]:
    return input_files(config.path, SUFFIXES, "corpus")


def _json_keys(config: CorpusConfig, file: InputFile) -> tuple[str, str | None, str]:
    """The keys of the id, the title and the text; of the usual ones of an id the file has one."""
    id_key = config.id or first_of(_JSON_IDS, next(read_jsonl(file, "corpus"), {}))
    title = "title" if config.title == USUAL else config.title
    return id_key, title, config.text or "text"


def _table(config: CorpusConfig) -> ParquetTable:
    return ParquetTable(config.path, "corpus")


def _columns(
    table: ParquetTable, config: CorpusConfig
) -> tuple[str | None, str | None, str | None]:
    """The columns of the id, the title, if there is one, and the text."""
    return (
        table.column(config.id, *_IDS),
        _title_column(table, config),
        table.column(config.text, "text"),
    )


def _title_column(table: ParquetTable, config: CorpusConfig) -> str | None:
    if config.title != USUAL:
        return config.title and table.column(config.title, required=False)
    if _unread_title(table, config):
        return None
    return table.column(None, "title", required=False)


def _unread_title(table: ParquetTable, config: CorpusConfig) -> Remark | None:
    """That a column is called title, which nobody named, and holds none."""
    if config.title != USUAL or "title" not in table.columns:
        return None
    kind = plain(table.kind("title"))
    if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return None
    return Remark(
        "corpus",
        LEFT_ALONE,
        table.rows,
        f"column 'title' of {table.path} is left alone and documents have no titles: nobody named "
        f"it, and it holds {kind}. Name it with corpus.title if these are titles, or say "
        "corpus.title: null",
    )


def _files_without_titles(files: Sequence[InputFile], titled: set[str]) -> Iterator[Remark]:
    without = [file for file in files if file.uri not in titled]
    if titled and without:
        yield Remark(
            "corpus",
            "column_in_some_files",
            len(without),
            f"titles are in {len(titled):,} of {len(files):,} files; {without[0]} has none: its "
            "documents have no titles",
        )


def _jsonl_batches(
    file: InputFile, keys: tuple[str, str | None, str], titled: set[str]
) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    columns: tuple[list[bytes | None], ...] = ([], [], [])
    fields = tuple(zip(keys, (json_id, json_text, json_text), columns, strict=True))

    def flush() -> tuple[pa.Array, ...]:
        arrays = tuple(pa.array(column, pa.binary()) for column in columns)
        for column in columns:
            column.clear()
        return arrays

    for number, row in enumerate(read_jsonl(file, "corpus"), start=1):
        if keys[0] not in row or keys[2] not in row:
            raise InputError(
                f"corpus: {file} document {number} lacks {keys[0]!r} or {keys[2]!r}; "
                f"it has {', '.join(map(repr, row))}"
            )
        if keys[1] in row:
            titled.add(file.uri)
        try:
            for key, read, column in fields:
                column.append(None if key is None else read(row.get(key)))
        except ValueError as error:
            raise InputError(f"corpus: {file} document {number}: {key!r} {error}") from None
        if len(columns[0]) == _JSONL_ROWS:
            yield flush()
    if columns[0]:
        yield flush()


def _validate(ids: pa.Array, titles: pa.Array, texts: pa.Array) -> tuple[pa.Table, dict[str, int]]:
    ids, bad_id = as_ids(ids, "corpus: ids")
    titles, bad_title = as_strings(titles, "corpus: titles")
    texts, bad_text = as_strings(texts, "corpus: texts")
    titles = pc.fill_null(titles, "")
    texts = pc.fill_null(texts, "")
    blank = pc.and_(_is_blank(titles), _is_blank(texts))
    reasons = {
        "missing_doc_id": pc.or_(pc.is_null(ids), pc.fill_null(pc.equal(ids, ""), False)),
        "invalid_utf8": pc.or_(bad_id, pc.or_(bad_title, bad_text)),
        "empty_document": blank,
    }
    keep = pa.array(np.ones(len(ids), dtype=bool))
    counts = {}
    for reason, hit in reasons.items():
        first = pc.and_(keep, hit)
        if count := pc.sum(first).as_py() or 0:
            counts[reason] = count
        keep = pc.and_not(keep, hit)
    columns = [column.cast(pa.large_string()) for column in (ids, titles, texts)]
    return pa.table(columns, schema=_SCHEMA).filter(keep), counts


def _is_blank(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


def _refuse_repeated_ids(ids: pa.ChunkedArray, path: str) -> None:
    repeated = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    if pc.any(repeated).as_py():
        first = pc.unique(ids.slice(1).filter(repeated)).slice(0, 5).to_pylist()
        raise InputError(f"corpus: document ids of {path} repeat, first {', '.join(first)}")
