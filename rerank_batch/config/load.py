"""YAML and overrides in, one frozen typed value out.

Unknown and repeated keys are refused with the nearest valid name.
"""

import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rerank_batch.config.base import S
from rerank_batch.config.dates import dated
from rerank_batch.config.messages import explain
from rerank_batch.config.root import Config
from rerank_batch.errors import ConfigError
from rerank_batch.schema import JsonObject
from rerank_batch.storage.text_streams import UNREADABLE, utf8_lines


def load_config(
    path: Path, overrides: list[str] | None = None, day: datetime.date | None = None
) -> Config:
    """Read a YAML file, apply ``dotted.key=value`` overrides, validate, and fill in dates.

    ``day`` goes before ``queries.date``; without either it is today in UTC.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says which and what fits.
    """
    return dated(load_section(Config, path, overrides), day)


def load_section(kind: type[S], path: Path, overrides: list[str] | None = None) -> S:
    """The same for a file that holds another kind of configuration; see `load_config`."""
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    try:
        with path.open("rb") as file:
            text = b"\n".join(utf8_lines(file)).decode("utf-8")
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {type(raw).__name__}")
    for override in overrides or []:
        _apply_override(raw, override)
    return parse_section(kind, raw, source=str(path))


def parse_config(raw: JsonObject, source: str = "the configuration") -> Config:
    """Validate a plain mapping; see `load_config`."""
    return parse_section(Config, raw, source)


def parse_section(kind: type[S], raw: JsonObject, source: str) -> S:
    """Validate a plain mapping as a kind of configuration; ``source`` is named in messages.

    Raises:
        ConfigError: a key or a value is wrong; the message says which and what fits.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        explained = dict.fromkeys(explain(problem, kind) for problem in error.errors())
        problems = "\n".join(f"  - {line}" for line in explained)
        raise ConfigError(f"{source} cannot be used:\n{problems}") from None


def _apply_override(raw: JsonObject, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes dotted.key=value, not {override!r}")
    *parents, leaf = key.strip().split(".")
    section = raw
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        child = section[parent]
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section")
        section = child
    try:
        section[leaf] = yaml.load(value, Loader=_UniqueKeyLoader)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
