"""Records what the command lines of this tree do: ``python -m tests.integration.recorded.record
OUT_FOLDER [--kept FOLDER]``.

One JSON file for each command with its arguments, exit code, output, and of JSON the keys with
their types and the values; and one for each folder that the commands write. What differs from one
recording to the next without any change of the code is normalised, so that two recordings of one
tree are equal; see `normal`. ``--kept`` writes what is kept in the repository beside it: help
texts, exit codes and key trees, which are the same on every machine.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.integration.recorded.commands import END, READS, REPORTS, WORK, Step
from tests.integration.recorded.leftovers import left_in
from tests.integration.recorded.normal import TREE, Normal, key_tree
from tests.integration.recorded.project import write_project
from tests.services.server import KEY, Canned, ServiceServer

_COLUMNS = 100
_WIDE = 400
"""For tables with times in them: where a cell wraps must not depend on how long something took."""

_FOLDERS = {
    "first": "store/runs/first",
    "second": "store/runs/second",
    "held": "store/runs/held",
    "hybrid": "store/runs/hybrid",
    "capped": "store/runs/capped",
    "refused": "store/runs/refused",
    "systems": "store/runs/systems",
    "label-run": "store/runs/labels-1",
    "label-run-llm": "store/runs/labels-2",
    "jobs": "store/jobs",
    "scores": "store/scores",
    "index": "index",
    "index-with-update": "index-2",
    "labels": "labels-1",
    "labels-llm": "labels-2",
    "trained": "tuned",
    "delta": "delta-1",
    "sample": "sample-1",
}


_KEPT_FIELDS = ("command", "exit", "keys", "files")
_LIKE_ANOTHER = {f"files/{name}" for name in ("second", "held", "label-run-llm", "labels-llm")}


class Recorder:
    """Runs commands in a project's folder and writes what they did to ``out``."""

    def __init__(self, project: Path, out: Path, service: ServiceServer) -> None:
        self._project = project
        self._out = out
        self._normal = Normal(project)
        self._environment = _environment(project, service)
        self._query = ""

    def help(self) -> None:
        """The help of the app and of every command that it names, and of theirs."""
        found = self._helped("")
        with ThreadPoolExecutor(2) as pool:
            groups = list(pool.map(self._helped, found))
            under = [
                f"{above} {name}"
                for above, names in zip(found, groups, strict=True)
                for name in names
            ]
            list(pool.map(self._helped, under))

    def one_by_one(self, steps: Iterable[Step]) -> None:
        """Steps that build on each other."""
        for step in steps:
            self.record(step)

    def side_by_side(self, steps: Iterable[Step]) -> None:
        """Steps that only read."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.record, steps))

    def record(self, step: Step) -> None:
        """Run a command and write what it did."""
        words = [word.replace("{query}", self._query) for word in step.words]
        # Errors of the command line are drawn in a box, which ends where the terminal does.
        columns = _COLUMNS if step.name.startswith("errors/") else _WIDE
        began = time.monotonic()
        done = self._run(words, columns)
        told: dict[str, Any] = {
            "command": " ".join(["rerank-batch", *step.words]),
            "exit": done.returncode,
            "stderr": self._normal.lines(done.stderr, step.timed),
        }
        if "--json" in words and done.stdout.startswith("{"):
            summary = json.loads(done.stdout)
            hides_floats = step.name.startswith("benchmark/")
            told["keys"] = key_tree(summary)
            told["values"] = self._normal.value(summary, hides_floats, step.hides)
        else:
            told["stdout"] = self._normal.lines(done.stdout, step.timed)
        self._write(step.name, told)
        print(f"{time.monotonic() - began:6.1f} s  exit {done.returncode}  {step.name}", flush=True)

    def left(self) -> None:
        """What lies in the folders that the commands wrote."""
        for name, place in _FOLDERS.items():
            self._write(f"files/{name}", left_in(self._project / place, self._normal))
        others = self._project / "others"
        others.mkdir()
        for file in self._project.iterdir():
            if file.is_file() and not file.name.startswith("."):
                shutil.copy(file, others / file.name)
        self._write("files/others", left_in(others, self._normal))

    def look_up(self, run_id: str) -> None:
        """Take a query of a run for the steps that look one up."""
        file = min((self._project / f"store/runs/{run_id}/data").iterdir())
        self._query = pq.read_table(file).column("query")[0].as_py()

    def damage(self, run_id: str) -> None:
        """A copy of the root in which a file of the run lacks its last byte."""
        copy = self._project / "damaged"
        shutil.copytree(self._project / "store", copy)
        file = min((copy / f"runs/{run_id}/data").iterdir())
        file.write_bytes(file.read_bytes()[:-1])

    def _helped(self, command: str) -> list[str]:
        """Write the help of a command; the names of those under it."""
        done = self._run([*command.split(), "--help"], _COLUMNS)
        told = {
            "command": f"rerank-batch {command} --help".replace("  ", " "),
            "exit": done.returncode,
            "stdout": [line.rstrip() for line in done.stdout.splitlines()],
            "stderr": self._normal.lines(done.stderr),
        }
        self._write(f"help/{command.replace(' ', '-') or 'app'}", told)
        _, _, listed = done.stdout.partition("─ Commands ─")
        return re.findall(r"^│ ([a-z][a-z-]*)\s", listed, re.M)

    def _run(self, words: list[str], columns: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            cwd=self._project,
            env={**self._environment, "COLUMNS": str(columns)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def _write(self, name: str, told: dict[str, Any]) -> None:
        write(self._out / f"{name}.json", told)


def _environment(project: Path, service: ServiceServer) -> dict[str, str]:
    """Without a trace of a store, a cluster or a service other than the one on loopback."""
    strange = ("AWS_", "RAY_", "RERANK_", "HF_", "TERM", "FORCE_COLOR", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return kept | {
        "PYTHONPATH": str(TREE),
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "XDG_CACHE_HOME": str(project / ".cache"),
        "COHERE_BASE_URL": service.url,
        "CO_API_KEY": KEY,
        "TEI_BASE_URL": service.url,
        "TEI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{service.url}/v1",
        "OPENAI_API_KEY": KEY,
    }


def write(file: Path, told: dict[str, Any]) -> None:
    """A recording as JSON, a line for each line of text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told, indent=1, ensure_ascii=False, sort_keys=False)
    file.write_text(text + "\n", "utf-8")


def record(out: Path) -> None:
    """Record everything in a project of its own."""
    too_many = Canned(413, b'{"error": "batch size 20 > maximum allowed batch size 8"}')
    with (
        tempfile.TemporaryDirectory(prefix="recorded-") as name,
        ServiceServer("cohere", "tei", "llm") as service,
    ):
        project = Path(name)
        service.canned = lambda body: too_many if "texts" in body else None
        write_project(project)
        recorder = Recorder(project, out, service)
        recorder.help()
        recorder.one_by_one(WORK)
        recorder.look_up("first")
        recorder.damage("first")
        recorder.one_by_one(REPORTS)
        recorder.side_by_side(READS)
        recorder.left()
        recorder.one_by_one(END)


def kept_of(recorded: Path, kept: Path) -> None:
    """Of a recording what every machine finds the same: help, exit codes and key trees.

    A tree that another recording has as well is named for that one, so that little is kept twice.
    """
    first: dict[tuple[str, ...], str] = {}
    for file in sorted(recorded.rglob("*.json")):
        name = file.relative_to(recorded).with_suffix("").as_posix()
        told = json.loads(file.read_text("utf-8"))
        if name in _LIKE_ANOTHER:
            continue
        if not name.startswith("help/"):
            told = {field: told[field] for field in _KEPT_FIELDS if field in told}
            told |= {"keys": _told_once(told["keys"], name, first)} if "keys" in told else {}
        write(kept / f"{name}.json", told)


def _told_once(keys: Any, name: str, first: dict[tuple[str, ...], str]) -> Any:
    """The key tree, or those of several files by their names, unless one before is the same."""
    if isinstance(keys, dict):
        return {each: _told_once(tree, f"{name} {each}", first) for each, tree in keys.items()}
    one_before = first.setdefault(tuple(keys), name)
    return keys if one_before == name else [f"as {one_before}"]


def main() -> None:
    """Record into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Record what the command lines of this tree do.")
    parser.add_argument("out", type=Path, help="The folder to write; what is there goes.")
    parser.add_argument("--kept", type=Path, help="Where to write what the repository keeps.")
    asked = parser.parse_args()
    for folder in filter(None, (asked.out, asked.kept)):
        shutil.rmtree(folder, ignore_errors=True)
    record(asked.out.resolve())
    if asked.kept is not None:
        kept_of(asked.out, asked.kept)


if __name__ == "__main__":
    main()
