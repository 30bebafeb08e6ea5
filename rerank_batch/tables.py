"""Reading other people's tables: Parquet, with every surprise turned into a clear error.

Knows files, columns and filters; not what a corpus or a query log is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rerank_batch.config import FilterTerm
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.remarks import Remark
from rerank_batch.storage import InputFile, input_files, open_dataset, reading_failed

_BATCH_ROWS = 65_536
_OPERATORS = {
    "==": lambda field, value: field == value,
    "!=": lambda field, value: field != value,
    "<": lambda field, value: field < value,
    "<=": lambda field, value: field <= value,
    ">": lambda field, value: field > value,
    ">=": lambda field, value: field >= value,
}


class ParquetTable:
    """Parquet files read as one table, with hive partitions as columns.

    Every footer is read first, so that a damaged file is named before any work is done.

    Raises:
        InputError: no file, a file that is not Parquet, files of different shape, or no rows.
    """

    def __init__(self, path: str, what: str) -> None:
        self.what = what
        self.path = path
        self.files = input_files(path, (".parquet",), what)
        self.remarks: tuple[Remark, ...] = ()
        footers = [_footer(file, what) for file in self.files]
        self.rows = sum(footer.num_rows for footer in footers)
        _refuse_missing_columns(self.files, footers, what)
        if self.rows == 0:
            raise InputError(f"{what}: {path} holds no rows")
        try:
            self._dataset = open_dataset(
                [file.uri for file in self.files],
                partitioning=ds.partitioning(flavor="hive"),
                base=None if self.files[0].uri == path else path,
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"{what}: the files under {path} do not fit together: {error}"
            ) from None

    @property
    def columns(self) -> list[str]:
        """The columns there are, partition columns included."""
        return list(self._dataset.schema.names)

    def column(self, named: str | None, *defaults: str, required: bool = True) -> str | None:
        """The column to read: the one the user named, else the first default that exists.

        Raises:
            InputError: a named or required column is missing; the message lists what there is.
        """
        wanted = (named,) if named else defaults
        for name in wanted:
            if name in self.columns:
                return name
        if named is None and not required:
            return None
        raise InputError(
            f"{self.what}: {self.path} has no column {' or '.join(map(repr, wanted))}; "
            f"it has {', '.join(self.columns)}. Name the right one in the configuration"
        )

    def batches(
        self, columns: dict[str, str], terms: Sequence[FilterTerm] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Batches in file and row order with ``columns`` = {new name: column in the file}."""
        scanner = self._dataset.scanner(
            columns={name: pc.field(source) for name, source in columns.items()},
            filter=self._expression(terms),
            batch_size=_BATCH_ROWS,
        )
        try:
            yield from scanner.to_batches()
        except (pa.ArrowException, OSError) as error:
            raise reading_failed(f"{self.what}: reading {self.path} failed", error) from None

    def _expression(self, terms: Sequence[FilterTerm]) -> Any:
        expression = None
        for column, operator, value in terms:
            if column not in self.columns:
                raise InputError(
                    f"{self.what}: the filter names column {column!r}; "
                    f"{self.path} has {', '.join(self.columns)}"
                )
            kind = self._dataset.schema.field(column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            values = [_as_type(v, kind, column) for v in _listed(value)]
            if operator in ("in", "not in"):
                term = pc.field(column).isin(pa.array(values, type=kind))
                term = term if operator == "in" else ~term
            elif isinstance(value, (list, tuple)):
                raise ConfigError(f"{self.what}: the filter on {column!r} compares with a list")
            else:
                term = _OPERATORS[operator](pc.field(column), pa.scalar(values[0], type=kind))
            expression = term if expression is None else expression & term
        return expression


def fingerprint_files(path: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    """sha256 of every file an input path names, in the order they are read."""
    return [file.sha256() for file in input_files(path, suffixes, what)]


def _footer(file: InputFile, what: str) -> pq.FileMetaData:
    if file.size == 0:
        raise InputError(f"{what}: {file} is an empty file, not Parquet")
    try:
        with file.open() as source:
            return pq.read_metadata(source)
    except (pa.ArrowInvalid, OSError) as error:
        cause = f"{what}: {file} is not a whole Parquet file (truncated or another format)"
        raise reading_failed(cause, error) from None


def _refuse_missing_columns(
    files: Sequence[InputFile], footers: Sequence[pq.FileMetaData], what: str
) -> None:
    """Arrow would read a column that one file lacks as nulls, and rows would be lost in silence."""
    columns = [footer.schema.to_arrow_schema().names for footer in footers]
    for file, names in zip(files, columns, strict=True):
        if missing := [name for name in columns[0] if name not in names]:
            raise InputError(f"{what}: {file} lacks {', '.join(missing)}, which {files[0]} has")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_type(value: Any, kind: pa.DataType, column: str) -> Any:
    """The YAML value as the column's type, so that a quoted and an unquoted date both work."""
    text = value.isoformat() if hasattr(value, "isoformat") else value
    try:
        zoned = isinstance(value, str) and value.upper().endswith("Z")
        if pa.types.is_timestamp(kind) and kind.tz is not None and not zoned:
            naive = pa.scalar(value).cast(pa.timestamp(kind.unit))
            return pc.assume_timezone(naive, "UTC").cast(kind).as_py()
        return pa.scalar(text if pa.types.is_string(kind) else value).cast(kind).as_py()
    except (pa.ArrowException, OverflowError):
        raise ConfigError(
            f"the filter compares column {column!r} ({kind}) with {value!r}, which is no {kind}"
        ) from None
