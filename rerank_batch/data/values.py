"""What a value of a table or of JSON is as an id or as a text.

An id is text, exactly: the same document has the same id whoever wrote it down. pandas turns whole
numbers into floats as soon as one is missing, so 7.0 is "7"; what is no whole number is no id.

Knows Arrow arrays and JSON values; no files.
"""

import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rerank_batch.errors import InputError

_DIGITS = 4300
"""More digits than this have no id; Python writes none either."""

_BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
_TEXTUAL = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NO_IDS = (pa.types.is_boolean, pa.types.is_temporal)


def as_ids(values: pa.Array, where: str) -> tuple[pa.Array, pa.Array]:
    """A column of ids as strings, and which of its values hold invalid UTF-8 (those are null).

    ``where`` begins the message of an error: the section and the column.

    Raises:
        InputError: values that are no ids: truth values, times, numbers that are not whole, lists.
    """
    values = _plain(values)
    if any(check(values.type) for check in _NO_IDS):
        raise InputError(f"{where}: a column of {values.type} holds no ids")
    if pa.types.is_floating(values.type):
        return _whole_numbers(values, where), _none_of(values)
    if pa.types.is_decimal(values.type):  # 7.00 is the 7 of a column of integers
        found = [None if each is None else _decimal_id(each) for each in values.to_pylist()]
        return pa.array(found, pa.string()), _none_of(values)
    return as_strings(values, where)


def as_strings(values: pa.Array, where: str) -> tuple[pa.Array, pa.Array]:
    """A column of texts as strings, and which of its values hold invalid UTF-8 (those are null).

    Parquet readers do not check the bytes of a string column; text functions of Arrow, Polars and
    the tokenizers rely on them, so this is the one gate that raw text passes.

    Raises:
        InputError: values that are no texts, such as lists, or numbers that are not finite.
    """
    values = _plain(values)
    if pa.types.is_floating(values.type):
        numbers = _numbers(values)
        if odd := next((n for n in numbers if n is not None and not n.is_finite()), None):
            raise InputError(f"{where}: a column of {values.type} holds {odd}, which is no text")
        texts = [None if number is None else number_text(number) for number in numbers]
        return pa.array(texts, pa.string()), _none_of(values)
    if pa.types.is_decimal(values.type):  # Arrow writes some of them with an exponent
        texts = [None if number is None else f"{number:f}" for number in values.to_pylist()]
        return pa.array(texts, pa.string()), _none_of(values)
    if not any(check(values.type) for check in _BINARY + _TEXTUAL):
        try:
            return values.cast(pa.string()), _none_of(values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(f"{where}: a column of {values.type} holds no texts or ids") from None
    raw = values.cast(pa.binary())
    # A string array over the same buffers: casting would refuse the whole array for one bad value.
    strings = pa.Array.from_buffers(
        pa.string(), len(raw), raw.buffers(), offset=raw.offset, null_count=raw.null_count
    )
    try:
        strings.validate(full=True)
        return strings, _none_of(strings)
    except pa.ArrowInvalid:
        decoded = [_decode(value) for value in raw.to_pylist()]
        bad = [isinstance(text, _Invalid) for text in decoded]
        kept = [None if isinstance(text, _Invalid) else text for text in decoded]
        return pa.array(kept, pa.string()), pa.array(bad, pa.bool_())


def json_id(value: Any) -> bytes | None:
    """A JSON value as an id for `as_ids`; None where it is missing.

    Raises:
        ValueError: true, false, a list, an object, or a number that is not whole.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}, which is no id")
    if isinstance(value, Decimal) and _whole(value) is None:
        raise ValueError(f"is {value}, which is no id: only whole numbers are")
    return json_text(value)


def json_text(value: Any) -> bytes | None:
    """A JSON value as a text for `as_strings`: JSON can spell half a character, UTF-8 cannot.

    Raises:
        ValueError: a list, an object, or a number that is not finite.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None:
        return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, Decimal) and value.is_finite():
        return number_text(value).encode()
    kind = "a list" if isinstance(value, list) else "an object"
    kind = str(value) if isinstance(value, Decimal) else kind
    raise ValueError(f"is {kind}, which is no text or id")


def number_text(value: Decimal) -> str:
    """A number as people write it: a whole one without a point, no exponent where that is short."""
    whole = _whole(value)
    if whole is not None:
        return str(whole)
    return f"{value:f}" if abs(value.adjusted()) < _DIGITS else str(value)


def _whole(value: Decimal) -> int | None:
    """The whole number that a number is; None where it is none."""
    if not value.is_finite() or value.adjusted() >= _DIGITS or value.adjusted() < -_DIGITS:
        return None if value else 0
    return int(value) if value == value.to_integral_value() else None


def _plain(values: pa.Array) -> pa.Array:
    """The values themselves, out of dictionaries and of types that are built on others."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        kind = values.type.value_type
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):  # Arrow decodes neither
            raw = pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary()
            entries = values.dictionary.cast(raw)
            values = pa.DictionaryArray.from_arrays(values.indices, entries)
        values = values.dictionary_decode()
    if isinstance(values.type, pa.UuidType):
        raw = [None if v is None else str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()]
        return pa.array(raw, pa.string())
    return values.storage if isinstance(values.type, pa.BaseExtensionType) else values


def _whole_numbers(values: pa.Array, where: str) -> pa.Array:
    """Floats as the whole numbers they are; NaN is what pandas writes for a missing value."""
    ids = []
    # Exactly what is stored: the fewest digits of 2**60 end in 000, and the integer does not.
    for value in values.to_pylist():
        number = None if value is None or value != value else Decimal(value)
        if number is not None and _whole(number) is None:
            raise InputError(
                f"{where}: a column of {values.type} holds {number}, which is no id: only whole "
                "numbers are"
            )
        ids.append(None if number is None else number_text(number))
    return pa.array(ids, pa.string())


def _decimal_id(value: Decimal) -> str:
    whole = _whole(value)
    return f"{value:f}" if whole is None else str(whole)


def _numbers(values: pa.Array) -> list[Decimal | None]:
    """Floats by the fewest digits that tell them apart in their own width; NaN is None."""
    texts = values.to_numpy(zero_copy_only=False).astype(str).tolist()
    return [None if text == "nan" else Decimal(text) for text in texts]


def _none_of(values: pa.Array) -> pa.Array:
    return pa.array([False] * len(values), pa.bool_())


class _Invalid:
    """Marks a value whose bytes are not UTF-8."""


def _decode(value: bytes | None) -> str | _Invalid | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return _Invalid()
