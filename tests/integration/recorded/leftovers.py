"""What commands leave on disk: the names of files, and what is in those of a known form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.integration.recorded.normal import Normal, merged_tree

_TEXTS = (".md", ".html", ".trec", ".tsv", ".yaml", ".csv", ".resp", ".redis", ".txt")
_MOST_ROWS = 60


def left_in(folder: Path, normal: Normal) -> dict[str, Any]:
    """Files under a folder by their normal names: keys, schemas and contents.

    Files whose names differ in random parts alone stand together.
    """
    named: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.endswith(".lock"):
            named.setdefault(normal.text(file.relative_to(folder).as_posix()), []).append(file)
    told = {name: _told(name, files, normal) for name, files in named.items()}
    return {
        "files": [f"{name} x {len(files)}" for name, files in named.items()],
        "keys": {name: each["keys"] for name, each in told.items() if "keys" in each},
        "values": {name: each["values"] for name, each in told.items() if "values" in each},
    }


def _told(name: str, files: list[Path], normal: Normal) -> dict[str, Any]:
    suffix = files[0].suffix
    if suffix == ".json":
        # Each worker counts the tokens of a text once: in which block depends on who gets which.
        hides = ("tokens",) if name.startswith("commits/") else ()
        raw = [json.loads(file.read_text("utf-8")) for file in files]
        keys = merged_tree(_named_keys(each, normal) for each in raw)
        values = [normal.value(each, hides=hides) for each in raw]
    elif suffix in _READERS:
        keys, values = _READERS[suffix](files, normal)
    elif suffix in _TEXTS:
        return {"values": [normal.lines(file.read_text("utf-8")) for file in files]}
    else:
        return {}
    # Their names say nothing of their order.
    in_order = values if len(files) == 1 else sorted(values, key=json.dumps)
    return {"keys": keys, "values": in_order}


def _jsonl(files: list[Path], normal: Normal) -> tuple[list[str], list[Any]]:
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    values = [normal.value(row) for row in rows[:_MOST_ROWS]]
    return merged_tree(_named_keys(row, normal) for row in rows), [[len(rows), *values]]


def _named_keys(value: Any, normal: Normal) -> Any:
    """The value as it is, so that types are told, under normal keys."""
    if isinstance(value, dict):
        return {normal.key(key): _named_keys(each, normal) for key, each in value.items()}
    if isinstance(value, list):
        return [_named_keys(each, normal) for each in value]
    return value


def _parquet(files: list[Path], normal: Normal) -> tuple[list[str], list[Any]]:
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return _schema(tables[0].schema), [_rows(table) for table in tables]


def _arrow(files: list[Path], normal: Normal) -> tuple[list[str], list[Any]]:
    """Of Arrow files the schema; what is in them is told by those who read them."""
    with pa.OSFile(str(files[0])) as source:
        schema = pa.ipc.open_file(source).schema
    return _schema(schema), [len(files)]


def _schema(schema: pa.Schema) -> list[str]:
    fields = [
        f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema
    ]
    return [*fields, *(f"metadata {key.decode()}" for key in sorted(schema.metadata or {}))]


def _rows(table: pa.Table) -> list[Any]:
    """How many there are, and the first of them; a text may hold bytes that are no UTF-8."""
    first = table.slice(0, _MOST_ROWS)
    for number, field in enumerate(first.schema):
        if pa.types.is_string(field.type):
            first = first.set_column(number, field.name, first.column(number).cast(pa.binary()))
    plain = json.loads(json.dumps(first.to_pylist(), default=_written))
    rows = (json.dumps(_rounded(row), ensure_ascii=False) for row in plain)
    return [table.num_rows, *rows]


def _written(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


_READERS: dict[str, Callable[[list[Path], Normal], tuple[list[str], list[Any]]]] = {
    ".jsonl": _jsonl,
    ".dynamodb": _jsonl,
    ".parquet": _parquet,
    ".pairs": _parquet,
    ".serving": _parquet,
    ".arrow": _arrow,
}
