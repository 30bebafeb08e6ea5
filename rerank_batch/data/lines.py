"""Text files of others, line by line: every reader of lists, judgements, topics, runs and jsonl.

Knows files, lines and JSON objects; not what they mean.
"""

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from rerank_batch.errors import InputError
from rerank_batch.schema import JsonObject
from rerank_batch.storage import InputFile, reading_failed
from rerank_batch.storage.text_streams import UNREADABLE, utf8_lines


def read_lines(file: InputFile, what: str) -> Iterator[tuple[int, bytes]]:
    """The numbers of a text file's lines, from 1, and the lines without their ends.

    Byte-order marks and ends of lines are as in `text_streams`; gzip, zstd and bzip2 are unpacked.

    Raises:
        InputError: the file cannot be read or unpacked to its end, or is no text.
        StorageError: the store fails.
    """
    number = 0
    try:
        with file.open() as raw:
            for number, line in enumerate(utf8_lines(raw), start=1):
                if b"\0" in line:
                    raise InputError(
                        f"{what}: {file} line {number} holds NUL bytes, as UTF-16 without a "
                        "byte-order mark does; save the file as UTF-8"
                    )
                yield number, line
    except UNREADABLE as error:
        cause = f"{what}: {file} is damaged after line {number}"
        raise reading_failed(cause, error) from None


def read_text_lines(file: InputFile, what: str) -> Iterator[tuple[int, str]]:
    """The same as text.

    Raises:
        InputError: see `read_lines`; or a line that is not UTF-8.
    """
    for number, line in read_lines(file, what):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{what}: {file} line {number} is not UTF-8 text: {error}") from None


def read_jsonl(file: InputFile, what: str) -> Iterator[JsonObject]:
    """The objects of a jsonl file; numbers with a point or an exponent are `Decimal`, NaN is None.

    Raises:
        InputError: a line that is not one JSON object, or one with a key twice, with its number.
    """
    for number, line in read_text_lines(file, what):
        if not line.strip():
            continue
        try:
            row = _DECODER.decode(line.strip())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what}: {file} is damaged near line {number}: {error}") from None
        if isinstance(row, _Repeated):
            raise InputError(f"{what}: {file} line {number} has the key {row.key!r} twice")
        if not isinstance(row, dict):
            raise InputError(f"{what}: {file} line {number} is not a JSON object")
        yield row


class _Repeated(dict[str, Any]):
    """An object with a key twice, of which JSON does not say which counts."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    repeated = _Repeated(found)
    repeated.key = next(key for key in keys if keys.count(key) > 1)
    return repeated


def _number(text: str) -> Decimal:
    """A number with a point or an exponent, exactly; one beyond all bounds is infinite."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("-Infinity" if text.startswith("-") else "Infinity")


def _constant(name: str) -> Decimal | None:
    """NaN is what pandas and json.dump write for a value that is missing."""
    return None if name == "NaN" else Decimal(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_constant=_constant
)
