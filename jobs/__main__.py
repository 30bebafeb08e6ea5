"""The command line: `rerank-batch COMMAND …`, equally `python -m jobs COMMAND …`."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from rerank_batch.config.paths import is_text
from rerank_batch.errors import ConfigError
from rerank_batch.reporter import visible

from . import (
    benchmark,
    build_index,
    evaluate,
    export_delta,
    finetune,
    lookup,
    make_labels,
    rerank,
    runs,
    sample,
)
from .console import Console
from .options import EPILOG

# Model libraries ask the hub about files they have; a batch job says what it needs by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

app = typer.Typer(
    name="rerank-batch",
    help="Batch, offline retrieve-then-rerank on Ray Data.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (sample, build_index, rerank, evaluate, make_labels, lookup, finetune, export_delta):
    app.add_typer(command.app)
app.add_typer(runs.app)
app.add_typer(benchmark.app)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an output that lacks a character is no failure
    try:
        arguments = [_as_text(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    except ConfigError as error:
        Console().error(str(error))
        return error.exit_code
    run: Callable[..., Any] = app
    return run(args=arguments)


def _as_text(argument: str) -> str:
    """An argument whose bytes Python could not read in the encoding of the environment.

    Raises:
        ConfigError: they are no UTF-8 either.
    """
    if is_text(argument):
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise ConfigError(
            f"the argument {visible(argument)} is not UTF-8: write it in UTF-8, or rename the file"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
