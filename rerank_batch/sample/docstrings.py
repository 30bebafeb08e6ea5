"""The harvest: every documented public object of a few installed packages, as one Parquet file.

Run in a process of its own (`python -m rerank_batch.sample.docstrings OUT [SOURCE ...]`), because
it imports over a thousand modules: the caller must not inherit what they register, patch or print.
It knows nothing of queries, splits or logs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import json
import pkgutil
import platform
import re
import sys
import sysconfig
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.sample.document import Document, can_be_query
from rerank_batch.sample.text import collapse, normalise

STANDARD_LIBRARY = "python"
SOURCES: tuple[str, ...] = (
    STANDARD_LIBRARY,
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "pyarrow",
    "polars",
    "networkx",
    "sympy",
)
DISTRIBUTIONS: Mapping[str, str] = {"sklearn": "scikit-learn"}

SHORTEST_TEXT = 80
"""A document with fewer characters says nothing that its first paragraph did not."""

SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("paragraph", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

# Modules that act when imported, are deprecated, are somebody else's code, are tables, or import
# only where a package beyond the sources is installed (the sample must not depend on those).
_LEFT_OUT_ANYWHERE = frozenset(
    [
        "__main__", "benchmarks", "conftest", "deprecated", "externals", "pygletplot", "test",
        "testing", "tests", "vendored",
    ]
)  # fmt: skip
_LEFT_OUT = frozenset(
    [
        "antigravity", "encodings", "idlelib", "lib2to3", "pydoc_data", "this",
        "turtledemo", "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk",
        "crypt", "distutils", "imghdr", "imp", "mailcap", "nis", "nntplib", "ossaudiodev",
        "pipes", "smtpd", "sndhdr", "spwd", "sre_compile", "sre_constants", "sre_parse",
        "sunau", "telnetlib", "uu", "xdrlib", "xml.etree.cElementTree", "numpy.distutils",
        "pyarrow.cffi", "sympy.core.compatibility", "sympy.core.trace", "sympy.galgebra",
        "sympy.utilities.runtests", "sympy.utilities.tmpfiles",
    ]
)  # fmt: skip

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
# SciPy writes the examples of its distributions when imported, with fresh random numbers in them.
_MAY_VARY = re.compile(r"^.*#\s*may vary.*$", re.MULTILINE)
_RULER = re.compile(r"^\s*([=\-~*^#_+.])\1{2,}\s*$", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(order=True, frozen=True)
class _Name:
    """One way to reach an object; the smallest is the canonical one."""

    borrowed: bool  # met in a module that only uses it
    dots: int
    inherited: bool
    length: int
    dotted: str

    @classmethod
    def of(cls, dotted: str, *, borrowed: bool = False, inherited: bool = False) -> _Name:
        return cls(borrowed, dotted.count("."), inherited, len(dotted), dotted)


@dataclass
class _Found:
    """An object with every name it goes by (holding it keeps its id from being reused)."""

    thing: object
    kind: str
    docstring: str
    names: set[_Name] = field(default_factory=set)


@dataclass
class Harvest:
    """What was found, and the modules that could not be imported (name and error type)."""

    documents: list[Document]
    skipped: dict[str, str]
    versions: dict[str, str]

    def table(self) -> pa.Table:
        """The documents as a table; versions and skipped modules travel in its metadata."""
        columns = {name: [getattr(d, name) for d in self.documents] for name in SCHEMA.names}
        notes = {"versions": self.versions, "skipped": self.skipped}
        encoded = {key: json.dumps(value, sort_keys=True) for key, value in notes.items()}
        return pa.table(columns, schema=SCHEMA.with_metadata(encoded))


def harvest(sources: tuple[str, ...] = SOURCES) -> Harvest:
    """Import the public modules of the sources and read their docstrings.

    A module that cannot be imported (an optional dependency, another platform) is skipped and
    named in the result.
    """
    found: dict[int, _Found] = {}
    skipped: dict[str, str] = {}
    for source in sources:
        for module in _modules(source, skipped):
            _collect(module, _owners(source), found)
    versions = dict(_version(source) for source in sources if source not in skipped)
    return Harvest(_documents(found), dict(sorted(skipped.items())), versions)


def split_docstring(docstring: str, name: str) -> tuple[str, str]:
    """First paragraph on one line, and the rest; a signature in front belongs to neither."""
    lines = inspect.cleandoc(docstring).split("\n")
    body = "\n".join(_without_signature(lines, name)).strip()
    first, *rest = _BLANK_LINE.split(body, maxsplit=1)
    return collapse(_RULER.sub("", first)), "".join(rest).strip()


def _modules(source: str, skipped: dict[str, str]) -> Iterator[ModuleType]:
    # pkgutil.walk_packages cannot be told to stay out of a package (it imports it to look
    # inside), so this walks by hand and prunes.
    standard = source == STANDARD_LIBRARY
    pending = sorted(sys.stdlib_module_names, reverse=True) if standard else [source]
    while pending:
        name = pending.pop()
        if not _is_public_module(name):
            continue
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            skipped[name] = type(error).__name__
            continue
        yield module
        inside = pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}.")
        pending += sorted((m.name for m in inside), reverse=True)


def _is_public_module(name: str) -> bool:
    parts = name.split(".")
    private = any(part.startswith("_") for part in parts)
    return not private and name not in _LEFT_OUT and _LEFT_OUT_ANYWHERE.isdisjoint(parts)


def _owners(source: str) -> frozenset[str]:
    """Top-level modules whose objects count as this source's own."""
    return sys.stdlib_module_names if source == STANDARD_LIBRARY else frozenset([source])


def _collect(module: ModuleType, owners: frozenset[str], found: dict[int, _Found]) -> None:
    _add(found, module, "module", _Name.of(module.__name__))
    # A package imports what it offers; any other module also imports what it merely uses.
    is_package = hasattr(module, "__path__")
    offered = getattr(module, "__all__", vars(module) if is_package else ())
    for attribute, thing in _public(vars(module)):
        if isinstance(thing, ModuleType) or not _is_owned(thing, owners):
            continue
        home = getattr(thing, "__module__", None)
        borrowed = attribute not in offered and home != module.__name__
        name = _Name.of(f"{module.__name__}.{attribute}", borrowed=borrowed)
        if isinstance(thing, type):
            _collect_class(thing, name, owners, found)
        else:
            _add(found, thing, _kind(thing, "function"), name)


def _collect_class(
    cls: type[object], name: _Name, owners: frozenset[str], found: dict[int, _Found]
) -> None:
    _add(found, cls, "exception" if issubclass(cls, BaseException) else "class", name)
    for ancestor in cls.__mro__:
        if not _is_owned(ancestor, owners):
            continue
        for attribute, thing in _public(vars(ancestor)):
            if isinstance(thing, (type, ModuleType)):
                continue
            member = _Name.of(
                f"{name.dotted}.{attribute}",
                borrowed=name.borrowed,
                inherited=ancestor is not cls,
            )
            _add(found, getattr(thing, "__func__", thing), _kind(thing, "method"), member)


def _public(members: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(name, thing) for name, thing in list(members.items()) if not name.startswith("_")]


def _is_owned(thing: object, owners: frozenset[str]) -> bool:
    """Made here, not imported from elsewhere; data objects belong to whoever came first."""
    if typing.get_origin(thing) is not None:
        return False  # an alias such as `tuple[int, ...]` repeats the docstring of its origin
    if not (isinstance(thing, type) or inspect.isroutine(thing)):
        return True
    module = getattr(thing, "__module__", None)
    return not isinstance(module, str) or module.partition(".")[0] in owners


def _kind(thing: object, routine: str) -> str:
    match thing:
        case staticmethod():
            return "static method"
        case classmethod():
            return "class method"
        case property() | functools.cached_property():
            return "property"
    if inspect.isdatadescriptor(thing):
        return "attribute"
    return routine if callable(thing) and hasattr(thing, "__name__") else "object"


def _add(found: dict[int, _Found], thing: object, kind: str, name: _Name) -> None:
    if id(thing) in found:
        found[id(thing)].names.add(name)
        return
    docstring = getattr(thing, "__doc__", None)
    if not isinstance(docstring, str):
        return
    of_its_type = (type(thing).__doc__, inspect.getattr_static(type(thing), "__doc__", None))
    if not isinstance(thing, type) and docstring in of_its_type:
        return  # a plain value: its type is documented, it is not
    found[id(thing)] = _Found(thing, kind, docstring, {name})


def _documents(found: dict[int, _Found]) -> list[Document]:
    """One document per text: what reads the same under two names is one document.

    Where one text stands under two different first paragraphs nobody could tell the documents
    apart, so neither is kept.
    """
    taken: set[str] = set()
    by_text: dict[str, list[Document]] = {}
    # Modules choose first: a function may share its module's dotted name, and has others.
    for entry in sorted(found.values(), key=lambda f: (f.kind != "module", min(f.names))):
        dotted = next((n.dotted for n in sorted(entry.names) if n.dotted not in taken), None)
        if dotted is None:
            continue
        taken.add(dotted)
        paragraph, text = split_docstring(_stable(entry.docstring), dotted.rpartition(".")[2])
        if len(collapse(text)) >= SHORTEST_TEXT and not _repeats(text, paragraph):
            document = Document(dotted, entry.kind, paragraph, text)
            by_text.setdefault(normalise(text), []).append(document)
    kept = [d[0] for d in by_text.values() if len({normalise(x.paragraph) for x in d}) == 1]
    return sorted(kept, key=lambda document: document.doc_id)


def _repeats(text: str, paragraph: str) -> bool:
    return can_be_query(paragraph) and normalise(paragraph) in normalise(text)


def _without_signature(lines: list[str], name: str) -> list[str]:
    """Drop leading lines like `norm(x, ord=None) -> float`, also when they span lines."""
    start = re.compile(rf"^\s*([\w.]+\.)?{re.escape(name)}\s*\(")
    while lines and start.match(lines[0]):
        depth = 0
        while lines:
            line = lines.pop(0)
            depth += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
            if depth <= 0:
                break
        while lines and lines[0].strip() in ("", "--"):  # "--" ends a C signature
            lines.pop(0)
    return lines


@functools.cache
def _machine_paths() -> re.Pattern[str]:
    # Only long, telling folders: masking a prefix such as /usr would damage ordinary prose.
    known = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return re.compile("|".join(re.escape(path) for path in sorted(known)))


def _stable(text: str) -> str:
    """The docstring without what depends on the process or the machine."""
    whole = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    settled = _MAY_VARY.sub("...", _ADDRESS.sub("0x...", whole))
    return _machine_paths().sub("...", settled)


def _version(source: str) -> tuple[str, str]:
    if source == STANDARD_LIBRARY:
        return source, platform.python_version()
    distribution = DISTRIBUTIONS.get(source, source)
    return distribution, metadata.version(distribution)


def main(arguments: list[str]) -> None:
    """Write the harvest to the path given first; sources may follow, else all of them."""
    if not arguments:
        raise SystemExit("usage: python -m rerank_batch.sample.docstrings OUT [SOURCE ...]")
    path, *sources = arguments
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = harvest(tuple(sources) or SOURCES)
    pq.write_table(result.table(), path)


if __name__ == "__main__":
    main(sys.argv[1:])
