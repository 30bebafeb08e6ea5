"""One column in several files: whether its types go together, and what they are together.

Knows Arrow's types and what people mean by them; not what a column is for, nor what to tell people.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rerank_batch.storage import InputFile

_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)
_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
"""What texts are read as whose own form Arrow cannot filter."""


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, or bytes that may be some."""
    return any(check(kind) for check in _TEXT + _BYTES)


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers of any width; true and false are none."""
    return any(check(kind) for check in _NUMBERS)


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, whether or not they are coded by a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def united(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that holds the values of all; None where they are of different kinds.

    Integers and text never go together: 7 is not "007". Nor do times with a zone and times without
    one: which hour the latter mean nobody says.
    """
    different = list(dict.fromkeys(kinds))
    if len(different) == 1:
        return different[0]
    plain_kinds = list(dict.fromkeys(map(plain, different)))
    some = [kind for kind in plain_kinds if not pa.types.is_null(kind)]
    if len(some) < 2:
        return some[0] if some else pa.null()
    for united_if in (_united_text, _united_numbers, _united_times, _united_lists):
        if (kind := united_if(some)) is not None:
            return kind
    return None


def as_kind(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values of a column of several types as its united one.

    Numbers keep their width, as a wide integer is no float64, and lists their form.
    """
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), kind)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_number(values.type) or _is_list(values.type):
        return values
    finer = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    return values.cast(kind, safe=not finer)


@dataclass(frozen=True)
class TablePart:
    """A file of a table that has rows: the columns written in it, and the types of these and of the
    folders' columns by name."""

    file: InputFile
    fragment: ds.Fragment
    of_file: tuple[str, ...]
    kinds: Mapping[str, pa.DataType]

    def shape(self, columns: Sequence[str]) -> tuple[pa.DataType, ...]:
        """The types of some columns; one that is not there is of the type of nothing."""
        return tuple(self.kinds.get(name, pa.null()) for name in columns)


def part_of(
    file: InputFile, footer: pq.FileMetaData, fragment: ds.Fragment, whole: pa.Schema
) -> TablePart:
    """What a file's footer and its place say; ``whole`` has the types of the folders' columns."""
    schema = footer.schema.to_arrow_schema()
    folders = ds.get_partition_keys(fragment.partition_expression)
    kinds = {field.name: _VIEWS.get(field.type, field.type) for field in schema}
    kinds |= {name: pa.timestamp("us", kinds[name].tz) for name in _int96(footer) if name in kinds}
    kinds |= {name: whole.field(name).type for name in folders}
    return TablePart(file, fragment, tuple(schema.names), kinds)


def _int96(footer: pq.FileMetaData) -> list[str]:
    """The columns of times as Spark and Hive write them; `open_dataset` reads microseconds."""
    columns = (footer.schema.column(place) for place in range(len(footer.schema)))
    return [column.path for column in columns if column.physical_type == "INT96"]


def zero_padded(fragments: Iterable[ds.Fragment], uris: Iterable[str]) -> set[str]:
    """The columns of folders whose names have numbers with leading zeros: as numbers they are
    others, and 007 is no 7."""
    found = set()
    for fragment, uri in zip(fragments, uris, strict=True):
        names = dict(part.split("=", 1) for part in uri.split("/") if "=" in part)
        for key, value in ds.get_partition_keys(fragment.partition_expression).items():
            if isinstance(value, int) and names.get(key, str(value)) != str(value):
                found.add(key)
    return found


def of_kinds(
    batch: pa.RecordBatch,
    columns: Mapping[str, str],
    kinds: Mapping[str, pa.DataType],
    absent: Mapping[str, Any],
) -> pa.RecordBatch:
    """A batch of one file with the types that the columns have over all files."""
    arrays = []
    for name, source in columns.items():
        values, kind = batch.column(name), kinds[source]
        if values.type == kind:
            arrays.append(values)
        elif pa.types.is_null(values.type) and name in absent:
            arrays.append(pa.repeat(pa.scalar(absent[name]), len(values)))
        else:
            arrays.append(as_kind(values, kind))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _united_text(kinds: list[pa.DataType]) -> pa.DataType | None:
    if not all(map(is_text, kinds)):
        return None
    # Not to text: a cast of bytes to text refuses a whole batch for one value that is none.
    if any(check(kind) for kind in kinds for check in _BYTES):
        return pa.large_binary()
    return pa.large_string()


def _united_numbers(kinds: list[pa.DataType]) -> pa.DataType | None:
    if not all(map(is_number, kinds)):
        return None
    if not all(map(pa.types.is_integer, kinds)):
        return pa.float64()
    signed = any(map(pa.types.is_signed_integer, kinds))
    if pa.uint64() not in kinds:
        return pa.int64()
    return pa.decimal128(20, 0) if signed else pa.uint64()


def _united_times(kinds: list[pa.DataType]) -> pa.DataType | None:
    if not all(pa.types.is_timestamp(kind) or pa.types.is_date(kind) for kind in kinds):
        return None
    zoned = {kind.tz is not None for kind in kinds if pa.types.is_timestamp(kind)}
    if not zoned:
        return pa.date32()
    if len(zoned) == 2 or (zoned == {True} and any(map(pa.types.is_date, kinds))):
        return None
    units = {kind.unit for kind in kinds if pa.types.is_timestamp(kind)}
    # Not all days have nanoseconds: those of an int64 end in the year 2262.
    has_days = any(map(pa.types.is_date, kinds))
    unit = units.pop() if len(units) == 1 and not (has_days and "ns" in units) else "us"
    return pa.timestamp(unit, tz="UTC" if True in zoned else None)


def _united_lists(kinds: list[pa.DataType]) -> pa.DataType | None:
    if not all(map(_is_list, kinds)):
        return None
    values = united(kind.value_type for kind in kinds)
    return None if values is None else pa.large_list(values)


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in _LISTS)
