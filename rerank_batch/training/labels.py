"""Canonical label rows in, queries with their labelled documents out.

Knows the columns of a label dataset, not how it was made; imports no model library.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.table_schemas import is_number, plain
from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import InputError, StorageError
from rerank_batch.schema import TableRow
from rerank_batch.storage import open_file
from rerank_batch.training.config import FinetuneConfig

POSITIVE, NEGATIVE = "positive", "negative"
SPLITS = ("train", "dev", "test")
RANDOM = "random"
"""The origin of negatives that are easy; those of any other origin are hard."""

CARD = "card.json"

_TEXTS = ("query_id", "query", "doc_id", "document", "role", "origin", "split")
_IDS = ("query_id", "doc_id")
_NUMBERS = ("label", "teacher_score", "rank")


class _Row(NamedTuple):
    """What is kept of a row beside its texts, NaN for null: there may be millions."""

    document: int
    positive: bool
    hard: bool
    label: float
    teacher_score: float
    rank: float


@dataclass(frozen=True)
class LabelledQuery:
    """A query and its documents, in the order of their ids.

    ``documents`` are numbers into `Labels.texts`. ``labels``, ``teacher`` and ``ranks`` are float
    arrays with NaN for null; ``positive`` and ``hard`` are flags. All have shape [n].
    """

    query_id: str
    text: str
    doc_ids: tuple[str, ...]
    documents: NDArray[np.int64]
    labels: NDArray[np.float32]
    teacher: NDArray[np.float32]
    ranks: NDArray[np.float32]
    positive: NDArray[np.bool_]
    hard: NDArray[np.bool_]

    @property
    def easy(self) -> NDArray[np.bool_]:
        """The negatives of random origin."""
        return ~self.hard & ~self.positive

    def grades(self) -> dict[str, int]:
        """Document -> grade for measures: the label of a positive, 1 where it has none; else 0."""
        return {
            doc_id: max(1, round(float(label))) if positive and label == label else int(positive)
            for doc_id, label, positive in zip(
                self.doc_ids, self.labels, self.positive, strict=True
            )
        }

    def only(self, keep: NDArray[np.bool_]) -> "LabelledQuery":
        """The query with some of its documents."""
        doc_ids = tuple(d for d, kept in zip(self.doc_ids, keep, strict=True) if kept)
        arrays = {
            name: getattr(self, name)[keep]
            for name in ("documents", "labels", "teacher", "ranks", "positive", "hard")
        }
        return LabelledQuery(self.query_id, self.text, doc_ids, **arrays)


@dataclass(frozen=True)
class Labels:
    """A label dataset in memory: every text once, queries by split, in the order of their ids."""

    folder: str
    fingerprint: str
    files: tuple[str, ...]
    texts: list[str]
    splits: dict[str, list[LabelledQuery]]

    def rows(self, split: str) -> int:
        """Labelled documents of a split."""
        return sum(len(query.doc_ids) for query in self.splits[split])


def read_labels(folder: str) -> Labels:
    """Read the dataset's card and all its rows.

    Raises:
        InputError: no card, columns or values that cannot be, a query in two splits, a document
            that is positive and negative for one query, or no dev queries.
    """
    fingerprint = _fingerprint(folder)
    table = ParquetTable(folder, "labels")
    texts: dict[str, int] = {}
    documents: list[str] = []
    queries: dict[str, list[Any]] = {}
    for row in _rows(table):
        number = texts.setdefault(row["doc_id"], len(documents))
        if number == len(documents):
            documents.append(row["document"])
        query = queries.setdefault(row["query_id"], [row["query"], row["split"], {}])
        if query[1] != row["split"]:
            raise InputError(
                f"labels: query {row['query_id']!r} is in {query[1]} and in {row['split']}: what "
                "is measured on it would be known from training"
            )
        found = _Row(
            number,
            row["role"] == POSITIVE,
            row["origin"] != RANDOM,
            *(np.nan if row.get(name) is None else row[name] for name in _NUMBERS),
        )
        if query[2].setdefault(row["doc_id"], found).positive != found.positive:
            raise InputError(
                f"labels: document {row['doc_id']!r} is positive and negative for query "
                f"{row['query_id']!r}"
            )
    splits: dict[str, list[LabelledQuery]] = {split: [] for split in SPLITS}
    for query_id in sorted(queries):
        text, split, listed = queries[query_id]
        splits[split].append(_query(query_id, text, listed))
    for split in ("train", "dev"):
        if not any(query.positive.any() for query in splits[split]):
            raise InputError(
                f"labels: {folder} has no {split} query with a positive; training needs them in "
                "train to learn from and in dev to know when to stop"
            )
    return Labels(
        folder, fingerprint, tuple(file.sha256() for file in table.files), documents, splits
    )


def trainable(labels: Labels, config: FinetuneConfig) -> tuple[list[LabelledQuery], dict[str, int]]:
    """The train queries that the loss can learn from, and what was left out by reason.

    A positive without a label has label 1, a negative without one 0. Rows without a teacher score
    are left out where the loss needs it (listnet does without those of random negatives), queries
    where no positive or no negative is left.

    Raises:
        InputError: nothing is left.
    """
    kept, left_out = [], Counter[str]()
    for query in labels.splits["train"]:
        usable = query
        if config.needs_teacher:
            known = ~np.isnan(query.teacher)
            if config.random_is_lowest:
                known |= query.easy
            left_out["rows without a teacher score"] += int((~known).sum())
            usable = query.only(known)
        # Negatives that are not listed are drawn from all documents, unless the teacher must know.
        negatives = (~usable.positive).any() or config.draws_documents
        if not usable.positive.any() or not negatives:
            reason = "positive" if not usable.positive.any() else "negative"
            left_out[f"queries without a {reason}"] += 1
            continue
        kept.append(usable)
    if not kept:
        reasons = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
        raise InputError(f"labels: nothing of {labels.folder} can be learned from ({reasons})")
    return kept, {what: count for what, count in left_out.items() if count}


def _fingerprint(folder: str) -> str:
    card = f"{folder.rstrip('/')}/{CARD}"
    try:
        with open_file(card) as source:
            found = json.loads(source.read())
        return str(found["fingerprint"])
    except StorageError:
        raise InputError(
            f"labels: {folder} has no {CARD}; make labels with: rerank-batch make-labels"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise InputError(f"labels: {card} is damaged: it names no fingerprint") from None


def _rows(table: ParquetTable) -> Iterator[TableRow]:
    columns = {name: name for name in (*_TEXTS, *_NUMBERS) if table.column(None, name)}
    for batch in table.batches(columns):
        values: dict[str, Sequence[Any]] = {}
        for name in _TEXTS:
            read = as_ids if name in _IDS else as_strings
            strings, _ = read(batch.column(name), f"labels: {name}")
            values[name] = strings.to_pylist()
        for name in _NUMBERS:
            values[name] = _float64(batch.column(name), name).to_pylist()
        for row in zip(*values.values(), strict=True):
            yield _checked(dict(zip(values, row, strict=True)))


def _float64(column: pa.Array, name: str) -> pa.Array:
    if not (is_number(plain(column.type)) or pa.types.is_null(column.type)):
        raise InputError(f"labels: column {name!r} holds {column.type}, no numbers")
    return column.cast(plain(column.type)).cast(pa.float64(), safe=False)


def _checked(row: TableRow) -> TableRow:
    for name in _TEXTS:
        if row[name] is None:
            raise InputError(f"labels: {name} is null or no UTF-8 in the row {_place(row)}")
    for name, choices in (("role", (POSITIVE, NEGATIVE)), ("split", SPLITS)):
        if row[name] not in choices:
            raise InputError(
                f"labels: {name} is {row[name]!r} in the row {_place(row)}; "
                f"it is one of {', '.join(choices)}"
            )
    for name in _NUMBERS:
        if row[name] is not None and not np.isfinite(row[name]):
            raise InputError(f"labels: {name} is {row[name]} in the row {_place(row)}")
    return row


def _place(row: TableRow) -> str:
    return f"of query {row['query_id']!r} and document {row['doc_id']!r}"


def _query(query_id: str, text: str, listed: dict[str, _Row]) -> LabelledQuery:
    doc_ids = tuple(sorted(listed))
    columns = zip(*(listed[doc_id] for doc_id in doc_ids), strict=True)
    documents, positive, hard, labels, teacher, ranks = map(np.array, columns)
    return LabelledQuery(
        query_id,
        text,
        doc_ids,
        documents.astype(np.int64),
        labels.astype(np.float32),
        teacher.astype(np.float32),
        ranks.astype(np.float32),
        positive,
        hard & ~positive,
    )
