"""The corpus: reading documents, numbering them, and the memory-mapped text store.

Documents are sorted by id and numbered from 0, so that a document number orders like its id (see
`ranking`). The text store is one uncompressed Arrow IPC file per shard, opened by memory map: any
number of processes on a node share one copy, and a lookup touches only the pages it needs.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
_DIGEST_BYTES = 16


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


def shard_bounds(documents: int, shards: int) -> list[tuple[int, int]]:
    """Half-open document number ranges of nearly equal size, one per shard; none is empty."""
    shards = min(shards, documents)
    edges = np.linspace(0, documents, shards + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def write_texts(documents: pa.Table, bounds: Sequence[tuple[int, int]], folder: Path) -> list[Path]:
    """Write the text store, one Arrow IPC file per shard, and return the files.

    What else is known of documents, such as their digests, is written the same way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (start, stop) in enumerate(bounds):
        file = folder / f"{number:05d}.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, documents.schema) as writer:
            writer.write_table(documents.slice(start, stop - start).combine_chunks())
        files.append(file)
    return files


DIGESTS = pa.schema([("doc_id", pa.large_string()), ("digest", pa.binary(_DIGEST_BYTES))])
"""What tells a document that changed from one that did not, row by row of a shard."""


def digests_of(documents: pa.Table) -> pa.Table:
    """`DIGESTS` of documents as a `Corpus` has them: of each what models read of it."""
    digests = bytearray()
    for batch in documents.select(["title", "text"]).to_batches(_JSONL_ROWS):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for row in rows:
            digests += blake2b(content(*row).encode(), digest_size=_DIGEST_BYTES).digest()
    column = pa.FixedSizeBinaryArray.from_buffers(
        DIGESTS.field("digest").type, documents.num_rows, [None, pa.py_buffer(bytes(digests))]
    )
    return pa.table([documents.column("doc_id"), column], schema=DIGESTS)


class TextStore:
    """Documents by number, read through a memory map.

    ``files`` and ``bounds`` come from the index manifest, in shard order. ``rows`` int64
    [documents] is the row of every document over all files; without it document n is row n.
    """

    def __init__(
        self,
        files: Sequence[Path],
        bounds: Sequence[tuple[int, int]],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._tables = [pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files]
        self._starts = np.array([start for start, _ in bounds], dtype=np.int64)
        self._places = rows
        self._count = bounds[-1][1] if rows is None else len(rows)

    def __len__(self) -> int:
        return self._count

    def ids(self, documents: NDArray[np.int64]) -> list[str]:
        """Ids of documents, in the order given."""
        return [row[0] for row in self._rows(documents, ("doc_id",))]

    def contents(self, documents: NDArray[np.int64]) -> list[str]:
        """What models read: title, a blank, text; in the order given."""
        return [content(*row) for row in self._rows(documents, ("title", "text"))]

    def numbers(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of documents by their ids, in the order given; -1 for an id that is none.

        Documents are in the order of their ids, so each is found by bisection, all at a time:
        nothing is kept in memory, whatever the size of the corpus.
        """
        wanted = np.array(ids, dtype=object)
        low = np.zeros(len(ids), dtype=np.int64)
        high = np.full(len(ids), self._count, dtype=np.int64)
        while len(going := np.flatnonzero(low < high)):
            middle = (low[going] + high[going]) // 2
            is_before = self._ids(middle) < wanted[going]
            low[going] = np.where(is_before, middle + 1, low[going])
            high[going] = np.where(is_before, high[going], middle)
        inside = np.flatnonzero(low < self._count)
        found = np.full(len(ids), -1, dtype=np.int64)
        is_it = self._ids(low[inside]) == wanted[inside]
        found[inside] = np.where(is_it, low[inside], -1)
        return found

    def _ids(self, documents: NDArray[np.int64]) -> NDArray[np.object_]:
        return np.array(self.ids(documents), dtype=object)

    def _rows(
        self, documents: NDArray[np.int64], columns: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [()] * len(documents)
        if self._places is not None:
            documents = np.asarray(self._places[documents])
        shard_of = np.searchsorted(self._starts, documents, side="right") - 1
        for shard in np.unique(shard_of):
            positions = np.flatnonzero(shard_of == shard)
            local = pa.array(documents[positions] - self._starts[shard])
            taken = self._tables[shard].select(columns).take(local)
            rows = zip(*(column.to_pylist() for column in taken.columns), strict=True)
            for position, row in zip(positions, rows, strict=True):
                found[position] = row
        return found


def content(title: str, text: str) -> str:
    """Title and text as one passage."""
    return f"{title} {text}" if title.strip() else text
