"""The help of every command: an example of it, and nothing heavy loaded to print it."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from jobs.__main__ import app


def commands(
    group: typer.main.TyperGroup, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.main.TyperGroup):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


@pytest.mark.parametrize("words", commands(typer.main.get_group(app)), ids=" ".join)
def test_a_command_has_help_with_an_example_of_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    _, _, examples = " ".join(result.output.split()).rpartition("Example")
    assert f": rerank-batch {' '.join(words)}" in examples


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, jobs.__main__\n"
        "print(*{'ray', 'torch', 'transformers', 'faiss', 'polars'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
