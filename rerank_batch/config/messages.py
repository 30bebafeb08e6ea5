"""Sentences for what pydantic finds wrong with a configuration.

Knows no setting: what a value may be is written at its type, as `Explained` or `OrElse`.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from rerank_batch.config.base import OrElse, Section


def explain(problem: Any, kind: type[Section]) -> str:
    """One sentence for one of the errors of a `pydantic.ValidationError`, beginning with its key.

    ``kind`` is the class that was validated.
    """
    *parents, key = problem["loc"] or ("",)
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = list(_section(parents, kind).model_fields)
        near = difflib.get_close_matches(str(key), valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key{hint} (valid keys: {', '.join(valid)})"
    if problem["type"] == "missing":
        field = _section(parents, kind).model_fields.get(str(key))
        others = [each for each in field.metadata if isinstance(each, OrElse)] if field else []
        return f"{where}: required" + "".join(f", or {other.sentence}" for other in others)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "words"):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {problem['input']!r})"


def _section(path: Sequence[str | int], kind: type[Section]) -> type[Section]:
    """The section that a path leads to; places in lists and names in mappings are any."""
    named = False
    for part in path:
        field = None if named else kind.model_fields.get(str(part))
        named = field is not None and get_origin(field.annotation) is dict
        if field is not None:
            kind = next(_sections(field.annotation), kind)
    return kind


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
