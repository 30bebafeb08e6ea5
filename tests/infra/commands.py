"""Whether a command line is one of ours, without running it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from jobs.__main__ import app

_STARTS = ("rerank-batch ", ".venv/bin/rerank-batch ")


def parse(words: Sequence[str]) -> None:
    """Take a command apart as the command line would.

    Raises:
        Exception: click's own, which says what is wrong with it.
    """
    program, *rest = words
    assert program.rpartition("/")[2] == "rerank-batch", words
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"no command {name!r}: {sorted(command.commands)}"
        command = command.commands[name]
    command.make_context(command.name, rest)


def blocks(page: Path) -> list[str]:
    """What a page shows between fences of the kind ``sh``, lines that go on joined."""
    shown = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in shown]


def lines(page: Path) -> list[str]:
    """The command lines of a page, without comments."""
    every = [line.strip() for block in blocks(page) for line in block.splitlines()]
    return [line for line in every if line and not line.startswith("#")]


def inline(page: Path) -> list[str]:
    """The commands of ours that a page's sentences and tables name between backquotes."""
    outside = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [code for code in re.findall(r"`([^`\n]+)`", outside) if code.startswith(_STARTS)]
