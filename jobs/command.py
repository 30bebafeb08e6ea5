"""What every command does around its work: console, signals, errors, configuration."""

import datetime
import logging
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rerank_batch.config import Config, load_config
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.errors import ConfigError, RerankBatchError
from rerank_batch.storage import use_endpoint

from .console import Console, EventLog
from .options import LogFormat

if TYPE_CHECKING:
    from rerank_batch.workflows.start import Start


@contextmanager
def command_console(
    as_json: bool, verbose: bool, log_format: LogFormat = LogFormat.text
) -> Iterator[Console]:
    """Open a console; turn a failure that a user can act on into one message and its exit code."""
    console = Console(as_json, verbose, log_format.value)
    handlers = [EventLog(console)] if log_format is LogFormat.json else None
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=handlers)
    # A spot node or a scheduler says goodbye with SIGTERM: leave as tidily as on Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    # A driver whose run is taken over stops wherever it waits: see `workflows.start.owned`.
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        yield console
    except RerankBatchError as error:
        if verbose:
            traceback.print_exc()
        console.error(str(error), error.exit_code)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        console.error("interrupted", 130)
        raise typer.Exit(130) from None


def config_from_options(
    path: Path, overrides: list[str] | None, date: str | None = None, run: str | None = None
) -> Config:
    """Load the configuration for the day given, or else for the day of the run, where it exists."""
    config = load_config(path, overrides, _day(date))
    use_endpoint(config.storage.endpoint)
    if date is None and run is not None and config.queries is not None and config.queries.date:
        from rerank_batch.workflows.inputs import day_of

        config = load_config(path, overrides, day_of(config, run))
    return with_collection_paths(config)


def _day(date: str | None) -> datetime.date | None:
    try:
        return None if date is None else datetime.date.fromisoformat(date)
    except ValueError:
        raise ConfigError(f"--date takes a day such as 2026-01-02, not {date!r}") from None


def start_from_options(
    run_id: str | None, resume: str | None, take_over: bool, or_resume: bool = False
) -> "Start":
    """How a run begins, or which run goes on.

    Raises:
        ConfigError: these options do not go together.
    """
    from rerank_batch.workflows.start import Start

    if run_id is not None and resume is not None:
        raise ConfigError("--run-id names a new run, --resume one that died: give one of them")
    if or_resume and run_id is None:
        raise ConfigError("--or-resume goes with --run-id, the same for every try")
    if take_over and resume is None and not or_resume:
        raise ConfigError("--take-over goes with --resume RUN_ID")
    return Start(run_id, resume, take_over, or_resume)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
