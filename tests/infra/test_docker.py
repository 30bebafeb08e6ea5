"""The container files: what hadolint says, and what the last stage of each holds."""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.infra.manifests import INFRA, night

FILES = sorted((INFRA / "docker").glob("Dockerfile.*"))
HADOLINT = shutil.which(
    "hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
)

both = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) in order, without comments, lines that go on joined."""
    kept = [line for line in file.read_text("utf-8").splitlines() if not re.match(r"\s*#", line)]
    joined = "\n".join(kept).replace("\\\n", " ")
    parts = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in parts]


def last_stage(file: Path) -> list[tuple[str, str]]:
    every = instructions(file)
    start = max(n for n, (word, _) in enumerate(every) if word == "FROM")
    return every[start:]


def test_there_is_one_for_cpus_and_one_for_gpus() -> None:
    assert [file.name for file in FILES] == ["Dockerfile.cpu", "Dockerfile.gpu"]


@both
def test_hadolint_has_nothing_to_say(file: Path, tmp_path: Path) -> None:
    assert HADOLINT, "hadolint comes with the dev extra"
    done = subprocess.run([HADOLINT, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    worse = tmp_path / "Dockerfile"
    worse.write_text(file.read_text("utf-8").replace("--no-install-recommends ", ""), "utf-8")
    found = subprocess.run([HADOLINT, str(worse)], capture_output=True, text=True, check=False)
    assert "DL3015" in found.stdout, "else it would not have looked"


@both
def test_what_is_shipped_has_no_compiler_and_runs_as_the_user_of_the_manifests(file: Path) -> None:
    stage = last_stage(file)
    assert len([word for word, _ in instructions(file) if word == "FROM"]) > 1
    runs = " ".join(rest for word, rest in stage if word == "RUN")
    assert not re.search(r"\b(gcc|g\+\+|clang|make|cmake|build-essential|pip)\b", runs)
    users = [rest for word, rest in stage if word == "USER"]
    pod = night()["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert users[-1] == str(pod["securityContext"]["runAsUser"])
    assert f"--uid {users[-1]} " in runs


@both
def test_every_base_and_every_package_has_its_version(file: Path) -> None:
    for word, rest in instructions(file):
        if word == "FROM":
            assert re.match(r"python:3\.11\.\d+-slim-bookworm\b", rest)
        for install in re.findall(r"pip install [^&]+", rest if word == "RUN" else ""):
            assert "--constraint infra/constraints.txt" in install
            assert "--only-binary :all:" in install, "a wheel, or there is nothing to compile it"


@both
def test_what_is_copied_is_let_through_and_nothing_else(file: Path) -> None:
    ignore = (INFRA.parent / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        source
        for word, rest in instructions(file)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied <= allowed
    assert all((INFRA.parent / source).exists() for source in allowed)
    for private in (".git", ".sample", ".runs", ".venv", "shared"):
        assert not any(fnmatch.fnmatch(private, rule) for rule in allowed)


def test_the_constraints_pin_everything_that_an_image_installs() -> None:
    """Every package that ours and its extra ``cluster`` need, and what those need in turn."""
    pins = {
        canonicalize_name(line.partition("==")[0])
        for line in (INFRA / "constraints.txt").read_text("utf-8").splitlines()
    }
    ours = tomllib.loads((INFRA.parent / "pyproject.toml").read_text("utf-8"))["project"]
    todo = [(text, "") for text in ours["dependencies"] + ours["optional-dependencies"]["cluster"]]
    seen: set[tuple[str, str]] = set()
    while todo:
        text, extra = todo.pop()
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(needed.name)
        for each in {(name, extra) for extra in (*needed.extras, "")} - seen:
            seen.add(each)
            todo += [(text, each[1]) for text in importlib.metadata.requires(name) or []]
    names = {name for name, _ in seen}
    assert {"ray", "aiohttp", "torch"} <= names
    # setuptools is torch's build tool, which pip freeze leaves out.
    assert names - pins - {"setuptools", "pip"} == set()
