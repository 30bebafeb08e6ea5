"""The page to a nightly run and the runbook: what they tell one to type is there to be typed."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.scripts.scripts import cli as ray_cli

from rerank_batch.errors import EXIT_CODES
from tests.infra.commands import inline, lines, parse
from tests.infra.manifests import INFRA, check, night

README, RUNBOOK = INFRA / "README.md", INFRA / "RUNBOOK.md"
PAGES = (README, RUNBOOK)

both = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@both
def test_every_command_of_ours_is_one(page: Path) -> None:
    told = inline(page) + [line for line in lines(page) if line.startswith("rerank-batch ")]
    assert len(told) >= 2
    for command in told:
        parse(shlex.split(command))


def test_every_command_of_ray_is_one() -> None:
    told = [line for line in lines(README) if line.startswith("ray ")]
    assert {tuple(shlex.split(line)[1:3]) for line in told} >= {("job", "submit"), ("job", "logs")}
    for line in told:
        words = shlex.split(line)[1:]
        if "--" in words:
            parse(words[words.index("--") + 1 :])
        command: Any = ray_cli
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


@both
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    for shell in ("$role", "$kind"):
        text = text.replace(shell, {"$role": "gc", "$kind": "cpu"}[shell])
    for name in re.findall(r"(?<![\w/])infra/[\w./-]*\w", text):
        assert (INFRA.parent / name).exists(), name
    for name in re.findall(r"`((?:kubernetes|iam|docker|airflow|argo)/[\w./-]*)`", text):
        assert (INFRA / name).exists(), name


def made_by(command: str) -> Any:
    """What a line of a page hands to kubectl, made by the shell as it stands there."""
    script, pipe, kubectl = command.partition("| kubectl apply -f -")
    assert pipe and not kubectl
    done = subprocess.run(
        script, shell=True, cwd=INFRA.parent, capture_output=True, text=True, check=True
    )
    return yaml.safe_load(done.stdout)


@both
def test_what_is_handed_to_kubectl_is_a_night(page: Path) -> None:
    seds = [line for line in lines(page) if line.startswith("sed ") and "kubectl" in line]
    assert seds
    for command in seds:
        made = made_by(command)
        check(made)
        parse(made["spec"]["entrypoint"].split())
        if "build-index" not in command:
            assert made == night("2026-01-02")


def test_a_night_that_begins_anew_has_another_run_and_the_same_log() -> None:
    (script,) = re.findall(r"`(sed -e [^`]+)`", RUNBOOK.read_text("utf-8"))
    made = made_by(f"{script} infra/kubernetes/rayjob.yaml | kubectl apply -f -")
    check(made)
    assert made["metadata"]["name"] == "nightly-2026-01-02-b"
    assert "--run-id nightly-2026-01-02-b --or-resume" in made["spec"]["entrypoint"]
    assert made["spec"]["entrypoint"].endswith("queries/date=2026-01-02")


def test_the_runbook_knows_every_exit_code() -> None:
    """A new one needs a row: what it means, what to look at, what to do."""
    rows = re.findall(r"^\| (\d+) \|.*\|.*\|.*\|$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert [int(code) for code in rows] == sorted({*EXIT_CODES, 130} - {0})


def test_placeholders_are_all_named_where_they_are_to_be_replaced() -> None:
    """A bucket or an account that the first step misses would be somebody else's."""
    (first,) = [line for line in lines(README) if line.startswith("grep -rlE")]
    replaced = set(re.findall(r"s/([^/]+)/YOUR_", first))
    assert set(shlex.split(first)[2].split("|")) == replaced
    for file in INFRA.rglob("*"):
        if file.is_file() and file.suffix in {".yaml", ".json", ".py"}:
            text = file.read_text("utf-8")
            assert set(re.findall(r"\b\d{12}\b(?!-)", text)) <= replaced, file
            assert set(re.findall(r"(?:s3://|arn:aws:s3:::)([\w-]+)", text)) <= replaced, file
            assert set(re.findall(r"\bami-\w+", text)) <= replaced, file
            assert set(re.findall(r"\b[a-z]{2}-[a-z]+-\d\b", text)) <= replaced, file
