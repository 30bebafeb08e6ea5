"""The list of documents that no source may give."""

from dataclasses import dataclass

import pyarrow.compute as pc

from rerank_batch.config import Config, ExcludeConfig, digest
from rerank_batch.data.id_matches import unmatched_documents
from rerank_batch.data.lines import read_text_lines
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.values import as_ids
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.index.open import Index
from rerank_batch.remarks import Remark
from rerank_batch.storage import input_files
from rerank_batch.storage.text_streams import with_packed

_WHAT = "retrieval.exclude"
_ID_SUFFIXES = (".parquet", *with_packed(".txt"))


@dataclass(frozen=True)
class Excluded:
    """Documents that no source may give, by number; how many ids of the list are none of the
    corpus; what identifies the list; and what looks wrong about it."""

    documents: tuple[int, ...] = ()
    unknown: int = 0
    fingerprint: str | None = None
    remarks: tuple[Remark, ...] = ()

    def counts(self) -> dict[str, int]:
        """Documents that are taken out, and ids of the list that are unknown; empty without one."""
        if self.fingerprint is None:
            return {}
        return {"documents": len(self.documents), "unknown": self.unknown}


def excluded_line(documents: int, unknown: int) -> str:
    """A line of the summary."""
    none = f"; {unknown:,} ids of the list are not in the corpus" if unknown else ""
    return f"{documents:,} documents by retrieval.exclude{none}"


def read_excluded(config: Config, index: Index) -> Excluded:
    """The documents of ``retrieval.exclude``.

    An id that is not in the corpus is counted: it may be that of a document that is gone already.

    Raises:
        InputError: no such file or column.
    """
    exclude = config.retrieval.exclude
    if exclude is None:
        return Excluded()
    ids = read_ids(exclude)
    numbers = index.texts().numbers(ids)
    known = tuple(numbers[numbers >= 0].tolist())
    remarks = unmatched_documents(_WHAT, "ids of the list", ids, index.texts())
    return Excluded(known, len(ids) - len(known), digest(ids), tuple(remarks))


def read_ids(exclude: ExcludeConfig) -> list[str]:
    """The distinct ids of a list, in order."""
    files = input_files(exclude.path, _ID_SUFFIXES, _WHAT)
    if files[0].kind != "parquet":
        if exclude.id is not None:
            raise ConfigError(f"{_WHAT}.id is a column of Parquet; {exclude.path} is text")
        lines = (line.strip(" \t") for file in files for _, line in read_text_lines(file, _WHAT))
        return sorted({line for line in lines if line})
    table = ParquetTable(exclude.path, _WHAT)
    column = table.column(exclude.id, "doc_id", "_id", "id") or ""
    ids: set[str] = set()
    for batch in table.batches({"doc_id": column}):
        batch_ids, bad = as_ids(batch.column("doc_id"), f"{_WHAT}: ids")
        if pc.any(bad).as_py():
            raise InputError(
                f"{_WHAT}: {column!r} of {exclude.path} holds an id that is not UTF-8 text, and "
                "its document would stay; mend the list"
            )
        ids.update(each for each in batch_ids.to_pylist() if each)
    return sorted(ids)
