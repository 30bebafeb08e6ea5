"""The commands are the package `jobs` in a checkout and `rerank_batch.commands` once installed."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed_and_none_is_called_jobs() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert settings["package-dir"] == {"rerank_batch.commands": "jobs"}
    folders = [
        file.parent.relative_to(ROOT)
        for top in ("rerank_batch", "jobs")
        for file in (ROOT / top).rglob("__init__.py")
    ]
    names = {".".join(folder.parts) for folder in folders}
    installed = {
        f"rerank_batch.commands{name.removeprefix('jobs')}" if name.startswith("jobs") else name
        for name in names
    }
    assert installed == set(settings["packages"])


def test_commands_import_each_other_relatively() -> None:
    by_name = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sorted((ROOT / "jobs").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        for name in _absolute_imports(node)
        if name.partition(".")[0] == "jobs"
    ]
    assert not by_name


def _absolute_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


@pytest.mark.slow
def test_an_installed_wheel_has_the_same_commands(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("jobs", "rerank_batch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as content:
        tops = {name.partition("/")[0] for name in content.namelist()}
        content.extractall(site)
    assert tops == {"rerank_batch", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    helps = [
        subprocess.run(
            [sys.executable, "-m", package, *words, "--help"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.replace(f"python -m {package}", "rerank-batch")
        for words in ((), ("rerank",), ("runs",), ("benchmark", "estimate"))
        for folder, package in ((ROOT, "jobs"), (site, "rerank_batch.commands"))
    ]
    for checkout, installed in zip(helps[::2], helps[1::2], strict=True):
        assert checkout.split() == installed.split()
