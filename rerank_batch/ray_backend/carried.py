"""Errors on their way through a framework that keeps no more of them than the text of a traceback.

A worker raises `Carried`, whose message ends with everything there is to know of the error; whoever
started the work finds it in whatever text it gets, and raises the same error again. Nothing is
unpickled on the way: an error is made of the name of its class, which has to be one of ours, and of
JSON. Knows nothing of Ray.
"""

import base64
import binascii
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rerank_batch.errors import RerankBatchError, remade
from rerank_batch.schema import JsonObject

T = TypeVar("T")

_MARKED = re.compile(r"<carried-error ([A-Za-z0-9_=-]*)>")
_MOST_CAUSES = 20
_MOST_CHARS = 600


class Carried(Exception):
    """An error that left its process; its message holds it."""


@contextmanager
def carrying() -> Iterator[None]:
    """Whatever is raised inside leaves as `Carried`, with the error as its cause.

    Raises:
        Carried: something was raised.
    """
    try:
        yield
    except Carried:
        raise
    except Exception as error:
        raise carried(error) from error


def call_carrying(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function; whatever it raises leaves as `Carried`.

    Ray takes plain functions as tasks: methods and partials travel as an argument of this one.
    """
    with carrying():
        return function(*arguments)


def carried(error: Exception) -> Carried:
    """The error as one that may travel through anything that keeps its message."""
    about: JsonObject = {"cause": _reason(error)}
    if isinstance(error, RerankBatchError):
        kinds = [kind for kind in type(error).__mro__ if issubclass(kind, RerankBatchError)]
        about |= {
            "kinds": [[kind.__module__, kind.__qualname__] for kind in kinds],
            "text": str(error),
            "args": _plain(error.args),
            "state": {
                name: value for name, value in vars(error).items() if _plain(value) is not None
            },
        }
    packed = base64.urlsafe_b64encode(json.dumps(about).encode()).decode()
    return Carried(f"{_named(error)} <carried-error {packed}>")


def unpacked(text: str) -> RerankBatchError | None:
    """The error of ours that a text carries, of its class or of the nearest one that is known here.

    None where it carries none, or one that is not ours.
    """
    about = _last(text)
    arguments = about.get("args")
    for module, name in about.get("kinds", ()):
        if (kind := _kind(module, name)) is not None:
            given = (about["text"],) if arguments is None else tuple(arguments)
            error = remade(kind, given, about["state"])
            if str(error) == about["text"]:
                return error
        arguments = None  # they are those of the first class, whose message may be made of them
    return None


def cause_of(text: str) -> str | None:
    """Class and message of the error that a text carries; None where it carries none."""
    cause: str | None = _last(text).get("cause")
    return cause


def without_carried(text: str) -> str:
    """The text without what only `unpacked` can read."""
    return _MARKED.sub("", text)


def _last(text: str) -> Mapping[str, Any]:
    """The last error that a text carries: the one that was raised at the end."""
    for packed in reversed(_MARKED.findall(text)):
        try:
            about = json.loads(base64.urlsafe_b64decode(packed))
        except (binascii.Error, ValueError):  # it was cut
            continue
        if isinstance(about, dict):
            return about
    return {}


def _kind(module: str, name: str) -> type[RerankBatchError] | None:
    """A class of ours by its name; None for anything else."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) and issubclass(found, RerankBatchError) else None


def _plain(value: Any) -> Any:
    """The value if JSON gives it back as it was, tuples as lists; None otherwise."""
    try:
        kept = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None
    return kept if kept == (list(value) if isinstance(value, tuple) else value) else None


def _reason(error: BaseException) -> str:
    """What was raised, and what that came from where it is another error."""
    first = error
    for _ in range(_MOST_CAUSES):
        inner = first.__cause__ or (None if first.__suppress_context__ else first.__context__)
        if inner is None:
            break
        first = inner
    return _named(error) if first is error else f"{_named(error)} (caused by {_named(first)})"


def _named(error: BaseException) -> str:
    """Class and message in one line."""
    message = " ".join(str(error).split())
    if len(message) > _MOST_CHARS:
        message = f"{message[:_MOST_CHARS]}…"
    return f"{type(error).__name__}: {message}".removesuffix(": ")
