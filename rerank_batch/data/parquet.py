"""Reading other people's tables: Parquet, with every surprise turned into a clear error.

Knows files, columns and filters; not what a corpus or a query log is.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rerank_batch.config import FilterTerm
from rerank_batch.data.table_schemas import TablePart, of_kinds, part_of, plain, united, zero_padded
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.remarks import IN_SOME_FILES, Remark
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

    Every footer is read first, so that a damaged file is named before any work is done. Only the
    columns that are read have to fit over all files; a file without rows has no say.

    Raises:
        InputError: no file, a file that is not Parquet, or no rows.
    """

    def __init__(self, path: str, what: str) -> None:
        self.what = what
        self.path = path
        self.files = input_files(path, (".parquet",), what)
        self._remarks: dict[str, Remark] = {}
        self._optional: dict[str, str] = {}
        self._kinds: dict[str, pa.DataType] = {}
        footers = [_footer(file, what) for file in self.files]
        self.rows = sum(footer.num_rows for footer in footers)
        if self.rows == 0:
            raise InputError(f"{what}: {path} holds no rows")
        self._padded: dict[str, pa.DataType] = {}
        self._dataset = self._opened(ds.partitioning(flavor="hive"))
        uris = (file.uri for file in self.files)
        if padded := zero_padded(self._dataset.get_fragments(), uris):
            self._padded = {name: self._dataset.schema.field(name).type for name in padded}
            kinds = [
                pa.field(each.name, pa.string()) if each.name in padded else each
                for each in self._dataset.partitioning.schema
            ]
            self._dataset = self._opened(ds.partitioning(pa.schema(kinds), flavor="hive"))
        parts = zip(self.files, footers, self._dataset.get_fragments(), strict=True)
        self._parts = [part_of(*each, self._dataset.schema) for each in parts if each[1].num_rows]
        in_files = (name for part in self._parts for name in part.of_file)
        in_folders = (name for part in self._parts for name in part.kinds)
        self.columns = list(dict.fromkeys([*in_files, *in_folders]))
        """The columns that any of the files has, partition columns included."""

    def _opened(self, folders: ds.Partitioning) -> ds.Dataset:
        try:
            return open_dataset(
                [file.uri for file in self.files],
                partitioning=folders,
                base=None if self.files[0].uri == self.path else self.path,
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"{self.what}: the files under {self.path} do not fit together: {error}"
            ) from None

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What looks wrong about the columns that were looked up or read so far."""
        return tuple(self._remarks.values())

    def column(
        self,
        named: str | None,
        *defaults: str,
        required: bool = True,
        otherwise: str | None = None,
    ) -> str | None:
        """The column to read: the one the user named, else the first default that exists.

        One that is not required may be missing from some files: their rows have no value there, or
        ``otherwise``, in words, and `remarks` says so.

        Raises:
            InputError: a named or required column is missing, from all files (the message lists
                what there is) or from some; or its types do not go together.
        """
        wanted = (named,) if named else defaults
        for name in wanted:
            if name in self.columns:
                self._check_kind(name, is_named=named is not None or required)
                if not required:
                    self._optional[name] = otherwise or "its rows have no value there"
                self._note_files_without(name, nulls_too=otherwise is not None)
                return name
        if named is None and not required:
            return None
        raise InputError(
            f"{self.what}: {self.path} has no column {' or '.join(map(repr, wanted))}; "
            f"it has {', '.join(self.columns)}. Name the right one in the configuration"
        )

    def _check_kind(self, column: str, is_named: bool) -> None:
        try:
            self.kind(column)
        except InputError as error:
            way_out = "" if is_named else ", or say null where the configuration names it"
            raise InputError(f"{error}{way_out}") from None

    def kind(self, column: str) -> pa.DataType:
        """The type of a column over all files.

        Raises:
            InputError: the types do not go together; the message names two files.
        """
        if column in self._kinds:
            return self._kinds[column]
        firsts: dict[pa.DataType, TablePart] = {}
        for part in self._parts:
            if column in part.kinds:
                firsts.setdefault(part.kinds[column], part)
        if (kind := united(firsts)) is not None:
            self._kinds[column] = kind
            return kind
        one, other = next(pair for pair in combinations(firsts, 2) if united(pair) is None)
        raise InputError(
            f"{self.what}: column {column!r} is {one} in {firsts[one].file} and {other} in "
            f"{firsts[other].file}; such values are not read as one column. Write it with one type"
        )

    def batches(
        self,
        columns: dict[str, str],
        terms: Sequence[FilterTerm] = (),
        absent: Mapping[str, Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Batches in file and row order with ``columns`` = {new name: column in the file}.

        A column has one type in all batches, but that numbers keep the width of their file.
        ``absent`` = {new name: value} is what rows have whose file has no such column, or holds
        nothing in it but nulls of no type, while others have values; without it, null.

        Raises:
            InputError: a column is missing from some files and was not looked up as one that may
                be, or does not fit together; a file is damaged.
            ConfigError: a filter compares with what the column cannot hold.
        """
        kinds = {name: self.kind(name) for name in columns.values()}
        for name in columns.values():
            if name not in self._optional:
                self._note_files_without(name)
        terms = [self._typed(term) for term in terms]
        needed = list(dict.fromkeys([*columns.values(), *(term[0] for term in terms)]))
        for shape, parts in groupby(self._parts, key=lambda part: part.shape(needed)):
            parts_of = list(parts)
            dataset = ds.FileSystemDataset(
                [part.fragment for part in parts_of],
                pa.schema(list(zip(needed, shape, strict=True))),
                self._dataset.format,
                self._dataset.filesystem,
            )
            for batch in self._scanned(dataset, columns, terms):
                try:
                    united_batch = of_kinds(batch, columns, kinds, absent or {})
                except pa.ArrowInvalid as error:
                    raise InputError(
                        f"{self.what}: the columns of {parts_of[0].file} do not fit to those of "
                        f"the other files of {self.path}: {error}. Write them with one type"
                    ) from None
                yield united_batch

    def _scanned(
        self, dataset: ds.Dataset, columns: dict[str, str], terms: Sequence[FilterTerm]
    ) -> Iterator[pa.RecordBatch]:
        expression = self._expression(terms, dataset.schema)
        try:
            scanner = dataset.scanner(
                columns={name: pc.field(source) for name, source in columns.items()},
                filter=expression,
                batch_size=_BATCH_ROWS,
            )
            yield from scanner.to_batches()
        except (pa.ArrowException, OSError) as error:
            raise reading_failed(f"{self.what}: reading {self.path} failed", error) from None

    def _typed(self, term: FilterTerm) -> FilterTerm:
        """The term with its values as the column's type."""
        column, operator, value = term
        if column not in self.columns:
            raise InputError(
                f"{self.what}: the filter names column {column!r}; "
                f"{self.path} has {', '.join(self.columns)}"
            )
        kind = self._filtered_as(column)
        values = [_as_type(each, kind, column) for each in _listed(value)]
        self._note_files_without(column, filtered=True)
        if operator in ("in", "not in"):
            return column, operator, values
        if isinstance(value, (list, tuple)):
            raise ConfigError(f"{self.what}: the filter on {column!r} compares with a list")
        return column, operator, values[0]

    def _filtered_as(self, column: str) -> pa.DataType:
        """The type a filter compares in: month=01 is what ``[month, ==, 1]`` finds."""
        return self._padded.get(column, plain(self.kind(column)))

    def _expression(self, terms: Sequence[FilterTerm], schema: pa.Schema) -> Any:
        """The terms for files of a schema; where a file has the column in another type than the
        table, its values are compared as the table's."""
        expression = None
        for column, operator, value in terms:
            kind = self._filtered_as(column)
            field = pc.field(column)
            if plain(schema.field(column).type) != kind:
                field = field.cast(kind, safe=False)
            if operator in ("in", "not in"):
                term = field.isin(pa.array(value, type=kind))
                term = term if operator == "in" else ~term
            else:
                term = _OPERATORS[operator](field, pa.scalar(value, type=kind))
            expression = term if expression is None else expression & term
        return expression

    def _note_files_without(
        self, column: str, filtered: bool = False, nulls_too: bool = False
    ) -> None:
        """See to a column that some files lack: refuse them, or remark that rows have none."""
        values = [part.kinds.get(column) for part in self._parts]
        empty = [kind is None or (nulls_too and pa.types.is_null(kind)) for kind in values]
        if all(empty) or not any(empty):
            return
        lacking, having = (self._parts[empty.index(each)].file for each in (True, False))
        if column not in self._optional and not filtered:
            raise InputError(f"{self.what}: {lacking} lacks {column!r}, which {having} has")
        effect = self._optional.get(column, "its rows have no value there")
        if filtered:
            effect = "its rows have no value there, and of a filter only 'not in' lets them pass"
        present_in = f"{empty.count(False):,} of {len(empty):,} files"
        self._remarks[column] = Remark(
            self.what,
            IN_SOME_FILES,
            empty.count(True),
            f"column {column!r} is in {present_in}; {lacking} lacks it: {effect}",
        )


def first_of(names: Sequence[str], present: Collection[str]) -> str:
    """The first of the names that is present, or the first of all."""
    return next((name for name in names if name in present), names[0])


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


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_type(value: Any, kind: pa.DataType, column: str) -> Any:
    """The YAML value as the column's type, so that a quoted and an unquoted date both work."""
    text = value.isoformat() if hasattr(value, "isoformat") else value
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    try:
        zoned = isinstance(value, str) and value.upper().endswith("Z")
        if pa.types.is_timestamp(kind) and kind.tz is not None and not zoned:
            naive = pa.scalar(value).cast(pa.timestamp(kind.unit))
            return pc.assume_timezone(naive, "UTC").cast(kind).as_py()
        return pa.scalar(text if is_text else value).cast(kind).as_py()
    except (pa.ArrowException, OverflowError):
        raise ConfigError(
            f"the filter compares column {column!r} ({kind}) with {value!r}, which is no {kind}"
        ) from None
