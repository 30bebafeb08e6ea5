"""The progress of a run, stage by stage: a line for each on a terminal, one line in a log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rerank_batch.progress import Snapshot, StageProgress

LINE_EVERY_SECONDS = 15
_DRAW_SECONDS = 1.0


class Log(Protocol):
    """Output for progress: a terminal that can be redrawn, or lines."""

    @property
    def log_format(self) -> str:
        """``json`` where a line is an object."""

    def note(self, text: str) -> None:
        """Print a line."""

    def event(self, event: str, message: str, level: str = "info", **fields: Any) -> None:
        """Print a line in JSON."""

    def live(self, first: RenderableType) -> Live | None:
        """Return an area that can be redrawn, where there is a terminal."""


@contextmanager
def run_progress(
    log: Log, look: Callable[[], Snapshot], remark: Callable[[], str]
) -> Iterator[None]:
    """Show a run until the context ends: redrawn on a terminal, else a line now and then."""
    stop = threading.Event()
    watcher = threading.Thread(target=_show, args=(log, look, remark, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _show(
    log: Log, look: Callable[[], Snapshot], remark: Callable[[], str], stop: threading.Event
) -> None:
    live = log.live(as_table(look()))
    if live is None:
        _print_lines(log, look, remark, stop)
        return
    read, text = monotonic(), ""
    with live:
        while not stop.wait(_DRAW_SECONDS):
            if monotonic() - read >= LINE_EVERY_SECONDS:
                read, text = monotonic(), remark()
            live.update(as_table(look(), text), refresh=True)
        live.update(as_table(look()), refresh=True)


def _print_lines(
    log: Log, look: Callable[[], Snapshot], remark: Callable[[], str], stop: threading.Event
) -> None:
    printed = monotonic()
    while not stop.wait(_DRAW_SECONDS):
        whole = look()
        if monotonic() - printed < LINE_EVERY_SECONDS:
            continue
        printed = monotonic()
        text = "; ".join(filter(None, [as_text(whole), remark()]))
        if log.log_format == "json":
            log.event("progress", text, what="queries", **as_fields(whole))
        else:
            log.note(text)


def as_text(whole: Snapshot) -> str:
    """The progress as one line of a log."""
    parts = [f"queries: {whole.committed:,} of {whole.planned:,} after {whole.seconds:.0f} s"]
    if whole.left is not None:
        parts[0] += f", {whole.left:.0f} s left"
    return "; ".join([*parts, *map(_line_as_text, whole.lines)])


def as_fields(whole: Snapshot) -> dict[str, Any]:
    """The progress as fields of an event."""
    return {
        "done": whole.committed,
        "total": whole.planned,
        "seconds": round(whole.seconds, 1),
        "seconds_left": _rounded(whole.left),
        "stages": [_line_as_fields(line) for line in whole.lines],
    }


def as_table(whole: Snapshot, remark: str = "") -> RenderableType:
    """The progress for a terminal, in its width: a line for the run and one for each stage."""
    first = f"queries {whole.committed:,} of {whole.planned:,}  {_clock(whole.seconds)}"
    if whole.left is not None:
        first += f"  {_clock(whole.left)} left"
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, min_width=4)
    for _ in range(5):
        grid.add_column(justify="right", no_wrap=True)
    for line in whole.lines:
        rate = f"{line.rate:,.{0 if line.rate >= 10 else 1}f}/s" if line.rate else ""
        grid.add_row(
            line.name,
            ProgressBar(total=1.0, completed=line.share),
            f"{_percent(line)}%",
            f"{line.queries:,}",
            "" if line.pairs is None else f"{line.pairs:,} pairs",
            rate,
            "" if line.left is None else _clock(line.left),
        )
    remarks = [Text(remark)] if remark else []
    return Group(Text(first, no_wrap=True, overflow="ellipsis"), grid, *remarks)


def _line_as_text(line: StageProgress) -> str:
    parts = [f"{line.name} {_percent(line)}%"]
    if line.pairs is None:
        parts[0] += f", {line.queries:,}"
    else:
        known = f" ({line.known:,} known)" if line.known else ""
        parts[0] += f", {line.queries:,} and {line.pairs:,} pairs{known}"
    if line.rate is not None:
        parts[0] += f" at {line.rate:,.1f}{'' if line.pairs is None else ' pairs'}/s"
    if line.left:
        parts.append(f"{line.left:.0f} s left")
    return ", ".join(parts)


def _line_as_fields(line: StageProgress) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "stage": line.name,
        "queries": line.queries,
        "share": round(line.share, 4),
        "per_second": _rounded(line.rate),
        "seconds_left": _rounded(line.left),
    }
    return fields if line.pairs is None else {**fields, "pairs": line.pairs, "known": line.known}


def _percent(line: StageProgress) -> int:
    """The share in percent, rounded down: 100 means that all is done."""
    return int(100 * line.share)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
