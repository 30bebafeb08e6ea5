"""Every key of the configuration as a page in Markdown: its type, its default, what it is.

``python -m rerank_batch.config.reference > configs/reference.md``
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from rerank_batch.config.base import Section
from rerank_batch.config.paths import expanded, expanded_cache, expanded_model
from rerank_batch.config.root import Config
from rerank_batch.config.scorer import SETTINGS_OF, ScorerSettings

_INTRODUCTION = """# Every setting

Made of the classes in [rerank_batch/config](../rerank_batch/config) by
`python -m rerank_batch.config.reference > configs/reference.md`. In a key, NAME is a name that you
choose and [] an element of a list. The settings of `finetune` are in
[rerank_batch/training/config.py](../rerank_batch/training/config.py).
"""
_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    date: "date",
    Any: "any value",
    NoneType: "null",
}
_ELEMENT: dict[Any, str] = {tuple: "[]", dict: ".NAME"}
_PATHS = {expanded: "path", expanded_cache: "path", expanded_model: "model"}


def page() -> str:
    """The whole page: a table of what stands at the top, then one for each section."""
    fields = Config.model_fields
    plain = {name: field for name, field in fields.items() if _section(field) is None}
    sections = [(name, kind) for name in fields if (kind := _section(fields[name])) is not None]
    known: dict[type[Section], str] = {}
    parts = [_INTRODUCTION, "## At the top\n", _table(_row(Config, name, "") for name in plain)]
    for name, kind in sections:
        known[kind] = name
        about = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
        parts += [f"\n## {name}\n", f"{about}\n", _table(_rows(kind, name, known))]
    return "\n".join(parts) + "\n"


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = [("key", "type", "default", ""), ("---", "---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(
    kind: type[Section], prefix: str, known: dict[type[Section], str]
) -> Iterator[tuple[str, str, str, str]]:
    """The rows of a section and of those in it; of one that is ``known`` only where it stands."""
    for name, field in kind.model_fields.items():
        yield _row(kind, name, f"{prefix}.")
        inner = _section(field)
        form: Any = get_origin(field.annotation)
        key = f"{prefix}.{name}{_ELEMENT.get(form, '')}"
        if inner is None:
            continue
        if inner in known:
            yield f"`{key}.…`", "", "", f"As `{known[inner]}`."
        else:
            known[inner] = key
            yield from _rows(inner, key, known)


def _row(kind: type[Section], name: str, prefix: str) -> tuple[str, str, str, str]:
    field = kind.model_fields[name]
    sentence = _sentences(kind)[name]
    if issubclass(kind, ScorerSettings) and (readers := _readers(name)):
        sentence += f" Read by {', '.join(readers)}."
    return (
        f"`{prefix}{name}`",
        _words_of(field.annotation, field.metadata),
        _default_of(field),
        sentence.replace("|", "\\|"),
    )


def _readers(name: str) -> list[str]:
    """The families that read a setting or a part of it."""
    return [
        family
        for family, settings in SETTINGS_OF.items()
        if any(setting.partition(".")[0] == name for setting in settings)
    ]


def _sentences(kind: type[Section]) -> dict[str, str]:
    """What is written below each field in the source of a section and of those that it extends."""
    sentences: dict[str, str] = {}
    for part in reversed(kind.__mro__[: kind.__mro__.index(Section)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = " ".join(str(ast.literal_eval(below.value)).split())
                sentences[ast.unparse(field.target)] = text
    return sentences


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, alone, in a list or by name."""

    def parts(annotation: Any) -> Iterator[type[Section]]:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield annotation
        for part in get_args(annotation):
            yield from parts(part)

    return next(parts(field.annotation), None)


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, Section):
        return ""
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


def _words_of(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in words, with its bounds."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        fields = (part.metadata if isinstance(part, FieldInfo) else [part] for part in more)
        return _words_of(annotation, [*chain.from_iterable(fields), *metadata])
    metadata = list(metadata)
    for each in metadata:
        if isinstance(each, AfterValidator) and each.func in _PATHS:
            return _PATHS[each.func]
    bounds = [text for each in metadata if (text := _bound(each))]
    return ", ".join([_name_of(annotation), *bounds])


def _name_of(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_words_of(part) for part in parts)
    if origin is dict:
        return f"mapping of {_words_of(parts[0])} to {_words_of(parts[1])}"
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {_words_of(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(_words_of(part) for part in parts)}]"
    return _NAMES.get(annotation, "section")


def _bound(limit: Any) -> str:
    match limit:
        case Ge():
            return f"at least {limit.ge}"
        case Gt():
            return f"more than {limit.gt}"
        case Le():
            return f"at most {limit.le}"
        case Lt():
            return f"less than {limit.lt}"
        case _:
            return ""


if __name__ == "__main__":
    print(page(), end="")
