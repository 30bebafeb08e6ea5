"""The house rules: where things live, how large they are, and which way imports run.

Import contracts (which room may import which, and who may import Ray, torch, FAISS and HTTP) are
in pyproject.toml and checked by `lint-imports`; what they cannot say is here.
"""

import ast
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_batch.config import Config

ROOT = Path(__file__).parents[1]
LIBRARY, COMMANDS = ROOT / "rerank_batch", ROOT / "jobs"
MODULE_LINES, FUNCTION_LINES, COMMAND_LINES = 400, 60, 150
FLAT_MODULES = 8
LOOSE_MAPPINGS = 40
"""So many ``dict[str, Any]`` there may be outside of what reads or writes JSON."""

ROOMS_OF_SECTIONS = {
    "corpus": "data", "queries": "data", "qrels": "data", "clicks": "data", "outcomes": "data",
    "cache": "score_cache", "compute": "pipeline", "cost": "runs", "limits": "runs",
    "guards": "runs", "notify": "workflows", "reranker": "rerankers",
    "answer_check": "answers",
}  # fmt: skip
"""The rooms of sections that are not called as their room is."""


def modules(*folders: Path) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.rglob("*.py"))]


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


EVERY = modules(LIBRARY, COMMANDS)
MODULES = {dotted(file) for file in EVERY}
TREES = {file: ast.parse(file.read_text("utf-8")) for file in EVERY}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("file", EVERY, ids=dotted)
def test_a_module_is_short_and_so_are_its_functions(file: Path) -> None:
    most = COMMAND_LINES if file.parent == COMMANDS and file.stem in commands() else MODULE_LINES
    assert len(file.read_text("utf-8").splitlines()) <= most
    if file.parent == PRINTING:
        return
    long = [f.name for f in functions(TREES[file]) if f.end_lineno - f.lineno >= FUNCTION_LINES]
    assert not long, f"functions of more than {FUNCTION_LINES} lines"


def commands() -> set[str]:
    """Modules of jobs/ that register a command."""
    return {
        file.stem
        for file in COMMANDS.glob("*.py")
        if "typer.Typer()" in file.read_text("utf-8") and file.stem != "__main__"
    }


def test_every_command_has_a_workflow_of_its_name() -> None:
    workflows = {file.stem for file in (LIBRARY / "workflows").glob("*.py")}
    assert commands() >= {"rerank", "evaluate", "build_index", "make_labels"}
    assert commands() <= workflows


def test_no_class_is_called_as_one_of_another_module() -> None:
    homes = defaultdict(set)
    for file, tree in TREES.items():
        for node in tree.body if file.parent != PRINTING else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(dotted(file))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_rooms_hold_no_two_modules_of_one_name() -> None:
    for room in (each for each in LIBRARY.iterdir() if each.is_dir()):
        names = Counter(file.stem for file in room.glob("*.py") if file.stem != "__init__")
        folders = {each.name for each in room.iterdir() if (each / "__init__.py").exists()}
        assert not folders & set(names), room.name
    flat = [file.stem for file in LIBRARY.glob("*.py")]
    assert len(flat) <= FLAT_MODULES, flat


def test_a_section_its_class_and_its_room_are_called_the_same() -> None:
    rooms = {each.name for each in LIBRARY.iterdir() if each.is_dir()}
    for section, field in Config.model_fields.items():
        if "Config" not in str(field.annotation):
            continue  # a value, such as the root
        assert (LIBRARY / "config" / f"{section}.py").exists(), section
        assert ROOMS_OF_SECTIONS.get(section, section) in rooms, section


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            named = {f"{node.module}.{each.name}" for each in node.names}
            found |= named if named <= MODULES else {node.module, *named}
    return found


def test_there_is_no_circle_of_imports() -> None:
    known = {dotted(file): file for file in EVERY}
    after = {
        name: {each for each in imports(TREES[file]) if each in known and each != name}
        for name, file in known.items()
    }
    after["rerank_batch"] = set()  # its names are imported when they are first used
    state: dict[str, int] = {}

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join([*path, name])
        if state.get(name) == 2:
            return
        state[name] = 1
        for other in sorted(after[name]):
            walk(other, (*path, name))
        state[name] = 2

    for name in sorted(after):
        walk(name, ())


PRINTING = LIBRARY / "benchmarks"
"""The one room that still prints its own tables."""


@pytest.mark.parametrize(
    "file", [each for each in modules(LIBRARY) if each.parent != PRINTING], ids=dotted
)
def test_the_library_knows_no_terminal(file: Path) -> None:
    for name in imports(TREES[file]):
        assert name.split(".")[0] not in ("jobs", "typer", "rich", "click"), name


TORCH = ("scoring", "rerankers", "training", "retrieval.encoder", "models", "benchmarks")
ONLY_IN = {
    "ray": ("ray_backend",),
    "torch": TORCH,
    "transformers": TORCH,
    "sentence_transformers": TORCH,
    "openvino": ("scoring", "benchmarks"),
    "faiss": ("retrieval", "benchmarks"),
    "bm25s": ("retrieval",),
    "httpx2": ("services",),
    "boto3": ("storage",),
    "jinja2": ("evaluation",),
    "matplotlib": ("evaluation",),
}
"""Who may import what: allow-lists, so that a module is covered on the day it is born."""


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_library_is_known_to_its_rooms_alone(package: str) -> None:
    rooms = tuple(f"rerank_batch.{room}" for room in ONLY_IN[package])
    knowing = {
        dotted(file)
        for file in EVERY
        if any(name.split(".")[0] == package for name in imports(without_type_checking(file)))
    }
    assert {name for name in knowing if not name.startswith(rooms)} == set()


def without_type_checking(file: Path) -> ast.Module:
    """The module as it runs: a name that only a type checker sees binds nothing."""
    body = [
        node
        for node in TREES[file].body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(body, [])


def test_tests_mirror_the_rooms() -> None:
    rooms = {each.name for each in LIBRARY.iterdir() if (each / "__init__.py").exists()}
    others = {"chaos", "commands", "golden", "infra", "integration", "support"}
    folders = {each.name for each in (ROOT / "tests").iterdir() if each.is_dir()}
    assert folders - {"__pycache__"} <= rooms | others


def test_contracts_are_allow_lists_that_name_every_room() -> None:
    """A room that is in no layer could import anything."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (layers,) = [each for each in linter["contracts"] if each.get("exhaustive")]
    named = {name.strip("() ") for layer in layers["layers"] for name in layer.split("|")}
    there = {file.stem for file in LIBRARY.glob("*.py") if file.stem != "__init__"}
    there |= {each.name for each in LIBRARY.iterdir() if (each / "__init__.py").exists()}
    assert there == {name.strip().strip("()") for name in named}


def test_loose_mappings_cross_no_borders() -> None:
    """``dict[str, Any]`` in signatures and fields, but for the edges where JSON is read or written.

    An edge is a function that is called so: from_json, to_json, as_json …
    """
    count = 0
    for file, tree in TREES.items():
        if file.is_relative_to(COMMANDS):
            continue
        edges = {
            line
            for function in functions(tree)
            if "json" in function.name or function.name in ("from_dict", "to_dict")
            for line in range(function.lineno, function.end_lineno + 1)
        }
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
            count += number not in edges and "dict[str, Any]" in line
    assert count < LOOSE_MAPPINGS
