"""The times and weights of a query log: which columns hold them, and what their values mean.

A column that the user named is read or refused. One that only has the usual name (ts, count) may be
something else: where it does not fit, it is left alone and a remark says so. Knows tables and
Arrow's types; not what a query is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import USUAL, QueriesConfig, TimeUnit
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.table_schemas import is_number, is_text
from rerank_batch.data.values import as_strings
from rerank_batch.errors import InputError
from rerank_batch.remarks import LEFT_ALONE, Remark

TIME = pa.timestamp("us", tz="UTC")

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_YEARS = (-62_135_596_800, 253_402_300_800)  # seconds from the year 1 to the year 10000
_INT64 = (-(2**63), 2**63 - 1)
_UNITS = "Set queries.time_unit to s, ms, us or ns"


@dataclass(frozen=True)
class LogColumns:
    """``columns``: new name (ts, weight) -> column of the log, of what is read.

    ``absent`` is what rows have whose file has no such column, see `ParquetTable.batches`.
    """

    columns: dict[str, str]
    unit: TimeUnit | None
    remarks: tuple[Remark, ...] = ()

    @property
    def absent(self) -> dict[str, float]:
        """A row of a file that counts nothing is one query, as in a log without weights."""
        return {"weight": 1.0}

    def added(
        self, batch: pa.RecordBatch, values: Mapping[str, Sequence[Any]], file: str
    ) -> pa.RecordBatch:
        """A batch of a file without types with the values of its columns, by new name.

        Raises:
            InputError: values of several kinds, such as numbers and texts.
        """
        for name, column in self.columns.items():
            try:
                read = _exact if name == "ts" else _as_float
                batch = batch.append_column(name, pa.array(map(read, values[name])))
            except (pa.ArrowException, ArithmeticError, UnicodeError, TypeError) as error:
                raise InputError(
                    f"queries: {column!r} of {file} holds values of several kinds: {error}"
                ) from None
        return batch

    def converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with float64 weights, times as `TIME`, and ``bad_time`` where those are none.

        Raises:
            InputError: a named column holds something else.
        """
        for name, column in self.columns.items():
            try:
                values, bad = _converted(batch.column(name), name, self.unit)
            except _Unfit as unfit:
                raise InputError(f"queries: column {column!r} holds {unfit}") from None
            batch = batch.set_column(batch.schema.get_field_index(name), name, values)
            if name == "ts":
                batch = batch.append_column("bad_time", bad)
        return batch


def log_columns(table: ParquetTable, config: QueriesConfig) -> LogColumns:
    """The columns of times and weights of a Parquet log; null in the configuration is none.

    Columns of the usual names are read once for that, before anything is done with the log.

    Raises:
        InputError: a named column is not there, or does not fit together over the files.
    """
    found: dict[str, str] = {}
    remarks = []
    for name, named in (("ts", config.time), ("weight", config.weight)):
        if named is None:
            continue
        column = table.column(
            None if named == USUAL else named,
            _USUAL_NAMES[name],
            required=False,
            otherwise="each row of it weighs 1" if name == "weight" else None,
        )
        if column is None:
            continue
        if named == USUAL and (remark := _misfit(table, config, name, column)):
            remarks.append(remark)
        else:
            found[name] = column
    return LogColumns(found, config.time_unit, tuple(remarks))


def named_columns(config: QueriesConfig) -> LogColumns:
    """Those of a log without types: only what the configuration names is read."""
    named = {"ts": config.time, "weight": config.weight}
    columns = {name: key for name, key in named.items() if key not in (None, USUAL)}
    return LogColumns({name: str(key) for name, key in columns.items()}, config.time_unit)


_USUAL_NAMES = {"ts": "ts", "weight": "count"}
_SETTINGS = {"ts": "queries.time", "weight": "queries.weight"}
_EFFECTS = {"ts": "queries have no times", "weight": "each row weighs 1"}
_MEANINGS = {
    "ts": "it is the time of a query",
    "weight": "rows with such values are to be rejected",
}


class _Unfit(Exception):  # whether it is an error depends on who named the column
    """What a column holds that cannot be read as what it was taken for."""


def _as_float(value: Any) -> Any:
    """A JSON number as a weight; what is none is left as it is."""
    is_number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
    return float(value) if is_number else value


def _exact(value: Any) -> Any:
    """A JSON value as a time; Arrow's decimals are all finite."""
    is_infinite = isinstance(value, Decimal) and not value.is_finite()
    return float(value) if is_infinite else value


def _misfit(table: ParquetTable, config: QueriesConfig, name: str, column: str) -> Remark | None:
    """Why a column that nobody named is left alone; None where it fits."""
    absent = LogColumns({}, None).absent
    bad = 0
    holds = ""
    try:
        for batch in table.batches({name: column}, config.filter, absent):
            wrong = _converted(batch.column(name), name, config.time_unit)[1]
            bad += pc.sum(wrong).as_py() or 0
    except _Unfit as unfit:
        bad, holds = table.rows, str(unfit)
    if not bad:
        return None
    if not holds:
        kinds = {"ts": "times beyond the years 1 to 9999", "weight": "values that are not above 0"}
        holds = f"{bad:,} {kinds[name]}"
    asks = "" if _UNITS in holds else f". Name it with {_SETTINGS[name]}"
    return Remark(
        "queries",
        LEFT_ALONE,
        bad,
        f"column {column!r} of {table.path} is left alone and {_EFFECTS[name]}: nobody named it, "
        f"and it holds {holds}{asks} if {_MEANINGS[name]}, or say {_SETTINGS[name]}: null",
    )


def _converted(values: pa.Array, name: str, unit: TimeUnit | None) -> tuple[pa.Array, pa.Array]:
    """Times or weights, and which of the values are none."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        values = pa.nulls(len(values), TIME if name == "ts" else pa.float64())
    return _times(values, unit) if name == "ts" else _weights(values)


def _weights(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    kind = values.type
    try:
        if is_text(kind):
            weights = as_strings(values, "queries: weights")[0].cast(pa.float64())
        elif is_number(kind) or pa.types.is_boolean(kind):
            weights = values.cast(pa.float64(), safe=False)
        else:
            raise _Unfit(f"no numbers but {kind}")
    except pa.ArrowInvalid as error:
        raise _Unfit(f"no numbers but {kind}: {error}") from None
    above = pc.and_(pc.is_finite(weights), pc.greater(weights, 0))
    return weights, pc.invert(pc.fill_null(above, False))


def _times(values: pa.Array, unit: TimeUnit | None) -> tuple[pa.Array, pa.Array]:
    kind = values.type
    if pa.types.is_timestamp(kind):
        return _from_integers(values.cast(pa.int64()), kind.unit)
    if pa.types.is_date32(kind):
        return _from_integers(values.cast(pa.timestamp("s")).cast(pa.int64()), "s")
    if pa.types.is_date64(kind):
        return _from_integers(values.cast(pa.int64()), "ms")
    if is_text(kind):
        try:
            times = as_strings(values, "queries: times")[0].cast(TIME)
        except pa.ArrowInvalid as error:
            raise _Unfit(f"no timestamps but {kind}: {error}") from None
        return _from_integers(times.cast(pa.int64()), "us")
    if not is_number(kind):
        raise _Unfit(f"no timestamps but {kind}")
    if unit is None:
        raise _Unfit(f"{kind}, and nobody says in which unit. {_UNITS}")
    if pa.types.is_integer(kind):
        return _from_integers(values, unit)
    return _from_floats(values.cast(pa.float64(), safe=False), unit)


def _from_integers(values: pa.Array, unit: str) -> tuple[pa.Array, pa.Array]:
    """Times from counts of a unit since 1970; null where they would leave the calendar."""
    first, end = (bound * _PER_SECOND[unit] for bound in _YEARS)
    whole = pa.uint64() if pa.types.is_uint64(values.type) else pa.int64()
    values = values.cast(whole)
    bad = _none_of(values)
    if not pa.types.is_uint64(whole) and first >= _INT64[0]:
        bad = pc.or_(bad, pc.less(values, pa.scalar(first, whole)))
    if end <= _INT64[1] or pa.types.is_uint64(whole):
        bad = pc.or_(bad, pc.greater(values, pa.scalar(min(end - 1, _INT64[1]), whole)))
    bad = pc.fill_null(bad, False)
    kept = pc.if_else(bad, pa.scalar(None, whole), values).cast(pa.int64())
    return kept.cast(pa.timestamp(unit, tz="UTC")).cast(TIME, safe=False), bad


def _from_floats(values: pa.Array, unit: str) -> tuple[pa.Array, pa.Array]:
    """Likewise; NaN is how pandas writes that there is none."""
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    seconds = pc.divide(values, float(_PER_SECOND[unit]))
    first, end = (pa.scalar(float(bound)) for bound in _YEARS)
    inside = pc.and_(pc.greater_equal(seconds, first), pc.less(seconds, end))
    bad = pc.invert(pc.fill_null(inside, True))
    kept = pc.if_else(bad, pa.scalar(None, pa.float64()), values)
    micros = pc.round(pc.multiply(kept, 10**6 / _PER_SECOND[unit]))
    return micros.cast(pa.int64()).cast(TIME), bad


def _none_of(values: pa.Array) -> pa.Array:
    return pa.repeat(pa.scalar(False), len(values))
