"""The output of a command: lines, progress and tables; with --json one object on stdout instead.

With the log format ``json`` each line on stderr is an object, for machines that read logs: time,
level, event, message, the run's id, and fields of the event.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from rerank_batch.progress import Snapshot
from rerank_batch.reporter import Reporter, visible

from .live import LINE_EVERY_SECONDS, run_progress

LogFormat = Literal["text", "json"]

_PIPED_COLUMNS = 110
_POLL_SECONDS = 0.5


class _Terminal(RichConsole):
    """A terminal for plain text: it obeys neither markup nor control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console.render_str`."""
        return super().render_str(visible(text), **options)


class Console(Reporter):
    """Prints the result to stdout and everything else to stderr, so that stdout can be piped.

    With ``as_json`` stdout holds the one object only: Ray's processes print warnings to file
    descriptor 1, so that points at stderr, and the object goes to a copy of the real one.
    A job sets ``run_id`` as soon as it knows it.
    """

    def __init__(
        self, as_json: bool = False, verbose: bool = False, log_format: LogFormat = "text"
    ) -> None:
        super().__init__(verbose)
        self.as_json = as_json
        self._log_format = log_format
        self._json_out = os.dup(1) if as_json else None
        if as_json:
            os.dup2(2, 1)
        self._err = _Terminal(stderr=True, highlight=False, emoji=False, markup=False)
        self._out = _Terminal(highlight=False, emoji=False, markup=False)
        if not self._out.is_terminal and "COLUMNS" not in os.environ:
            self._out.width = _PIPED_COLUMNS  # a file or a CI log has no edge to wrap at

    @property
    def log_format(self) -> LogFormat:
        """The format of a line on stderr."""
        return self._log_format

    def note(self, text: str) -> None:
        """Print a line about the work in progress."""
        if self.log_format == "json":
            self.event("note", text)
            return
        self._err.print(text, markup=False, soft_wrap=True)

    def error(self, text: str, exit_code: int | None = None) -> None:
        """Print a failure as one message."""
        if self.log_format == "json":
            self.event("error", text, level="error", exit_code=exit_code)
            return
        self._err.print(f"error: {text}", style="bold red", markup=False, soft_wrap=True)

    def event(self, event: str, message: str, level: str = "info", **fields: Any) -> None:
        """Print a line of the log in JSON; in the text format other lines tell the same."""
        if self.log_format != "json":
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            "run_id": self.run_id,
            "message": message,
            **fields,
        }
        # In one write, so that lines of several threads do not mix.
        ascii_only = not (sys.stderr.encoding or "").lower().startswith("utf")
        sys.stderr.write(json.dumps(line, ensure_ascii=ascii_only, default=str) + "\n")
        sys.stderr.flush()

    def result(self, summary: Mapping[str, Any], *tables: Table | str) -> None:
        """Print the summary of a job as JSON, or as tables and lines."""
        plain: dict[str, Any] = {
            k: v for k, v in summary.items() if isinstance(v, (str, int, float, bool))
        }
        plain = {k: v for k, v in plain.items() if k not in ("run_id", "level", "event", "time")}
        self.event("finished", "the job is done", **plain)
        if self._json_out is not None:
            # A stray byte, which no UTF-8 can hold, is written as JSON escapes it.
            with os.fdopen(self._json_out, "w", encoding="utf-8", errors="backslashreplace") as out:
                out.write(json.dumps(summary, ensure_ascii=False, default=str) + "\n")
            return
        for part in tables:
            self._out.print(part, soft_wrap=isinstance(part, str), markup=False)

    @contextmanager
    def progress(
        self,
        what: str,
        total: int,
        done: Callable[[], int],
        remark: Callable[[], str] = lambda: "",
    ) -> Iterator[None]:
        """Show ``done()`` of ``total`` until the block ends: a bar on a terminal, else lines.

        ``remark()`` is called every 15 seconds; text that it returns is shown beside the numbers.
        """
        stop = threading.Event()
        plain = self.log_format == "json" or not self._err.is_terminal
        show = self._lines if plain else self._bar
        watcher = threading.Thread(target=show, args=(what, total, done, remark, stop), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def run_progress(
        self, look: Callable[[], Snapshot], remark: Callable[[], str] = lambda: ""
    ) -> AbstractContextManager[None]:
        """Show a whole run until the context ends: redrawn on a terminal, else a line now and then.

        ``remark()`` is called every 15 seconds; text that it returns is shown beside the numbers.
        """
        return run_progress(self, look, remark)

    def live(self, first: RenderableType) -> Live | None:
        """An area of the terminal that can be redrawn; None where lines are printed."""
        if self.log_format == "json" or not self._err.is_terminal:
            return None
        # It is drawn when there is something new: a refresh of its own would only flicker.
        return Live(first, console=self._err, auto_refresh=False)

    def _bar(
        self,
        what: str,
        total: int,
        done: Callable[[], int],
        remark: Callable[[], str],
        stop: threading.Event,
    ) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        remarked = monotonic()
        with Progress(*columns, console=self._err) as bar:
            task = bar.add_task(what, total=total, completed=done())
            while not stop.wait(_POLL_SECONDS):
                if monotonic() - remarked >= LINE_EVERY_SECONDS:
                    remarked = monotonic()
                    bar.update(task, description=" ".join(filter(None, (what, remark()))))
                bar.update(task, completed=done())
            bar.update(task, completed=done())

    def _lines(
        self,
        what: str,
        total: int,
        done: Callable[[], int],
        remark: Callable[[], str],
        stop: threading.Event,
    ) -> None:
        began = printed = monotonic()
        before = done()
        while not stop.wait(_POLL_SECONDS):
            if monotonic() - printed < LINE_EVERY_SECONDS:
                continue
            printed = monotonic()
            count = done()
            parts = [f"{what}: {count:,} of {total:,} after {printed - began:.0f} s"]
            left = None
            if count > before:
                left = (total - count) * (printed - began) / (count - before)
                parts.append(f"{left:.0f} s left")
            text = ", ".join([*parts, *filter(None, [remark()])])
            if self.log_format != "json":
                self.note(text)
                continue
            fields: dict[str, Any] = {
                "done": count,
                "total": total,
                "seconds": round(printed - began, 1),
            }
            left = None if left is None else round(left, 1)
            self.event("progress", text, what=what, seconds_left=left, **fields)


class EventLog(logging.Handler):
    """Sends the logs of libraries to a console as events."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as a line."""
        level = record.levelname.lower()
        self._console.event("log", record.getMessage(), level=level, logger=record.name)
