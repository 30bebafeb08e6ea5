"""What became of queries after retrieval: Parquet in, one row per query, system and value out.

A thumb, a finished task, a grade: whatever it is, it is a number that somebody else measured. Knows
columns and values; which queries and systems there are, and what the numbers mean, the caller must
know.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import OutcomesConfig
from rerank_batch.data.id_matches import unmatched_queries
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import InputError
from rerank_batch.remarks import Remark

NAMES = ("query_id", "system", "outcome")

OUTCOMES = pa.schema([*((name, pa.string()) for name in NAMES), ("value", pa.float64())])
"""The long form of outcomes, without nulls: values are finite."""


@dataclass(frozen=True)
class Outcomes:
    """``table`` is of `OUTCOMES`, in the order of the file; ``rows`` is how many were read.

    ``dropped`` counts the others by reason: ``missing_name`` (an id, system or outcome that is
    null, empty or no UTF-8), ``missing_value`` and ``not_finite``. ``remarks`` say what looks wrong
    about the columns.
    """

    rows: int
    table: pa.Table
    dropped: dict[str, int]
    remarks: tuple[Remark, ...] = ()


def read_outcomes(config: OutcomesConfig) -> Outcomes:
    """Read outcomes; a row that says nothing is counted.

    Raises:
        InputError: nothing to read, a missing column, values that are no numbers, an outcome of
            ``less_is_better`` that no row has, or no row that says anything.
    """
    source = ParquetTable(config.path, "outcomes")
    columns = {name: getattr(config, name) for name in OUTCOMES.names}
    for named in columns.values():
        source.column(named)
    parts, rows = [OUTCOMES.empty_table()], 0
    dropped: dict[str, int] = {}
    for batch in source.batches(columns, config.filter):
        rows += batch.num_rows
        parts.append(_valid(batch, config, dropped))
    table = pa.concat_tables(parts)
    if table.num_rows == 0:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in dropped.items())
        raise InputError(
            f"outcomes: no row of {config.path} says what became of a query "
            f"({reasons or 'the filter leaves none'})"
        )
    names = pc.unique(table.column("outcome")).to_pylist()
    if unknown := sorted(set(config.less_is_better) - set(names)):
        raise InputError(
            f"outcomes: less_is_better names {', '.join(map(repr, unknown))}; the outcomes of "
            f"{config.path} are {', '.join(map(repr, sorted(names)))}"
        )
    return Outcomes(rows, table, dropped, source.remarks)


def add_outcomes(outcomes: Outcomes | None, table: pa.Table) -> Outcomes:
    """The outcomes, where there are any, and those of ``table``, which is of `OUTCOMES`."""
    if outcomes is None:
        return Outcomes(table.num_rows, table, {})
    together = pa.concat_tables([outcomes.table, table])
    rows = outcomes.rows + table.num_rows
    return Outcomes(rows, together, outcomes.dropped, outcomes.remarks)


def refuse_repeated_outcome(outcomes: Outcomes, name: str, whose: str) -> None:
    """Refuse outcomes from outside under a name that somebody here gives to others.

    Raises:
        InputError: they have it.
    """
    if name in pc.unique(outcomes.table.column("outcome")).to_pylist():
        raise InputError(f"outcomes: {name!r} is what {whose} calls its own; call yours otherwise")


def outcome_remarks(outcomes: Outcomes | None, judged: set[str]) -> list[Remark]:
    """What looks wrong about outcomes; ``judged`` are the ids of the judged queries of a run."""
    if outcomes is None:
        return []
    ids = outcomes.table.column("query_id").unique().to_pylist()
    where = "the judged queries of the run"
    return [*outcomes.remarks, *unmatched_queries("outcomes", "queries", ids, judged, where)]


def _valid(batch: pa.RecordBatch, config: OutcomesConfig, dropped: dict[str, int]) -> pa.Table:
    """The rows that say something; the others are added to ``dropped``."""
    # Invalid UTF-8 is null in what these give.
    readers = (as_ids, as_strings, as_strings)
    names = [
        read(batch.column(name), f"outcomes: {name}")[0]
        for name, read in zip(NAMES, readers, strict=True)
    ]
    values = _numbers(batch.column("value"), config)
    missing = pc.is_null(values)
    unnamed = pa.array([False] * batch.num_rows, pa.bool_())
    for column in names:
        unnamed = pc.or_(unnamed, pc.fill_null(pc.equal(column, ""), True))
    odd = pc.fill_null(pc.invert(pc.is_finite(values)), False)
    keep = pa.array([True] * batch.num_rows, pa.bool_())
    for reason, hit in (
        ("missing_name", unnamed),
        ("missing_value", missing),
        ("not_finite", odd),
    ):
        if count := pc.sum(pc.and_(keep, hit)).as_py():
            dropped[reason] = dropped.get(reason, 0) + count
        keep = pc.and_not(keep, hit)
    columns = [column.cast(pa.string()) for column in names]
    return pa.table([*columns, values], schema=OUTCOMES).filter(keep)


def _numbers(values: pa.Array, config: OutcomesConfig) -> pa.Array:
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    kinds = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_null,
    )
    if not any(check(kind) for check in kinds):
        raise InputError(
            f"outcomes: column {config.value!r} of {config.path} holds {kind}, no numbers; write "
            "true and false, or numbers"
        )
    return values.cast(pa.float64(), safe=False)
