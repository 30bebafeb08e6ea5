"""Reference answers: Parquet in, query id -> the answers that are right out."""

from dataclasses import dataclass

from rerank_batch.config import AnswerCheckConfig
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import InputError

_WHAT = "answer_check.reference"


@dataclass(frozen=True)
class References:
    """``answers`` by query id, each query's in the order of the file and none of them twice.

    ``dropped`` is how many of the ``rows`` have no id or no answer.
    """

    answers: dict[str, tuple[str, ...]]
    rows: int
    dropped: int

    def of(self, query_ids: tuple[str, ...] | list[str]) -> tuple[str, ...]:
        """The answers of a query under all its ids."""
        found = (answer for query_id in query_ids for answer in self.answers.get(query_id, ()))
        return tuple(dict.fromkeys(found))


def read_references(config: AnswerCheckConfig) -> References:
    """Read reference answers; a row without an id or without text is counted.

    Raises:
        InputError: nothing to read, a missing column, or no answer left.
    """
    table = ParquetTable(config.reference, _WHAT)
    columns = {"query_id": config.query_id, "answer": config.answer}
    for named in columns.values():
        table.column(named)
    answers: dict[str, dict[str, None]] = {}
    rows = dropped = 0
    for batch in table.batches(columns, config.filter):
        rows += batch.num_rows
        id_column, text_column = (batch.column(name) for name in columns)
        ids = as_ids(id_column, f"{_WHAT}: ids")[0].to_pylist()
        texts = as_strings(text_column, f"{_WHAT}: texts")[0].to_pylist()
        for query_id, text in zip(ids, texts, strict=True):
            if not query_id or not text or not text.strip():
                dropped += 1
            else:
                answers.setdefault(query_id, {})[text] = None
    if not answers:
        raise InputError(f"{_WHAT}: none of the {rows:,} rows of {config.reference} has an answer")
    return References({query: tuple(texts) for query, texts in answers.items()}, rows, dropped)
