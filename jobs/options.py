"""Options and arguments that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_batch.config.paths import expanded
from rerank_batch.errors import EXIT_CODES


class LogFormat(StrEnum):
    """Formats of the log."""

    text = "text"
    json = "json"


class LossyFormat(StrEnum):
    """Number formats that lose digits."""

    bf16 = "bf16"
    int8 = "int8"


def expand_path(value: Any) -> Any:
    """Expand ~ and variables in a path as the configuration does."""
    if value is None:
        return None
    try:
        return type(value)(expanded(str(value)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())

ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", callback=expand_path, help="A YAML file; see configs/ for commented ones."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: retrieval.depth=30."),
]
Date = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        help="The day of the night, for {date} and {yesterday} in queries; by default that of the "
        "run that is gone on with, else today in UTC.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check every input, estimate the work, stop.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The summary as one JSON object on stdout.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Logs of Ray and its workers, tracebacks.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="RERANK_BATCH_LOG_FORMAT",
        help="What stderr is: text for people, or json, an object a line.",
    ),
]
RunId = Annotated[
    str | None, typer.Option("--run-id", help="Name of the run; by default job, time, random.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", metavar="RUN_ID", help="Go on with a run that died.")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="With --resume: even if its driver is alive.")
]
OrResume = Annotated[
    bool,
    typer.Option(
        "--or-resume",
        help="With --run-id: begin that run, or go on with it; what a scheduler may repeat.",
    ),
]
RootUri = Annotated[
    str,
    typer.Argument(
        metavar="ROOT", callback=expand_path, help="The folder or s3:// prefix that holds the runs."
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN_ID")]
