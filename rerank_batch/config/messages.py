"""Sentences for what pydantic finds wrong with a configuration."""

import difflib
from typing import Any

from pydantic import BaseModel

from rerank_batch.config.base import Section
from rerank_batch.config.index import StopWords


def explain(problem: Any, kind: type[Section]) -> str:
    """One sentence for one of the errors of a `pydantic.ValidationError`, beginning with its key.

    ``kind`` is the class that was validated.
    """
    path = [str(part) for part in problem["loc"]]
    if path[:3] == ["index", "bm25", "stopwords"]:
        languages = ", ".join(StopWords.__args__)  # type: ignore[attr-defined]
        return f"index.bm25.stopwords: a list of words, or one of {languages}"
    if path and path[-1].startswith(("literal[", "constrained-int", "constrained-float")):
        where = ".".join(path[:-1])
        if where.endswith(".max_rejects"):
            kinds = "a whole number of rows, or a share of them from 0 to below 1"
            return f"{where}: {kinds} (got {problem['input']!r})"
        if where == "clicks.propensity.eta":
            return f"{where}: 'estimate' or a number from 0 to 5 (got {problem['input']!r})"
        if path[0] == "labels":
            return f"{where}: 'all' or a whole number of at least 0 (got {problem['input']!r})"
        return f"{where}: 'auto' or a whole number of at least 1 (got {problem['input']!r})"
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        *parents, unknown = (str(part) for part in problem["loc"])
        valid = _valid_keys(parents, kind)
        near = difflib.get_close_matches(unknown, valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key{hint} (valid keys: {', '.join(valid)})"
    if problem["type"] == "missing":
        choice = ", or a collection that has it" if where in ("corpus", "corpus.path") else ""
        return f"{where}: required{choice}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {problem['input']!r})"


def _valid_keys(parents: list[str], kind: type[Section]) -> list[str]:
    """The keys of the section that a path leads to; names in a mapping of sections are any."""
    model: type[BaseModel] = kind
    named = False
    for parent in parents:
        if named:
            named = False
            continue
        annotation = model.model_fields[parent].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        named = getattr(annotation, "__origin__", None) is dict
        model = sections[0]
    return list(model.model_fields)
