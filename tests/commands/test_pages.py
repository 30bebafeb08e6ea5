"""What the pages for users tell one to type can be typed, and what they point at is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.infra.commands import inline, lines, parse

PAGES = [Path("README.md"), Path("configs/README.md")]

each = pytest.mark.parametrize("page", PAGES, ids=str)


@each
def test_every_command_of_ours_is_one(page: Path) -> None:
    ours = [line for line in lines(page) if ".venv/bin/rerank-batch " in line]
    assert len(ours) >= 2
    for line in ours:
        for command in line.split("&&"):
            words = shlex.split(command.replace('"$@"', "configs/eval.yaml"), comments=True)
            parse(words)
    for command in inline(page):
        parse(shlex.split(command))


@each
def test_every_benchmark_that_is_named_is_one(page: Path) -> None:
    import jobs.benchmark

    known = set(typer.main.get_group(jobs.benchmark.app).commands)
    assert set(re.findall(r"`benchmark ([a-z]+)", page.read_text("utf-8"))) <= known


@each
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        name, _, part = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        if part:
            titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert part in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
