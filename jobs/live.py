"""How far a run is, stage by stage: a line for each on a terminal, one line in a log."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.console import SAY_EVERY_SECONDS, Console
from rerank_batch.pipeline.stages import StageSpec, pairs_of
from rerank_batch.progress import Line, Place, Progress, Whole
from rerank_batch.progress.pairs import Pairs
from rerank_batch.ray_backend.execution import BlockDone
from rerank_batch.ray_backend.progress import told_by_actors
from rerank_batch.rerankers.cached import KNOWN
from rerank_batch.runs import Run

_DRAW_SECONDS = 1.0


class RunProgress:
    """How far a run is that this driver executes; ``to_do`` are the blocks left to it."""

    def __init__(self, run: Run, to_do: Sequence[int], stages: Sequence[StageSpec]) -> None:
        self._places = places_of(stages)
        self._sums = Progress(self._places, run.blocks(), to_do, told_by_actors)

    def commit(self, block: BlockDone) -> None:
        """A block is committed."""
        numbers = {each.reranker for each in self._places if each.reranker is not None}
        self._sums.commit(block.start, {n: _pairs(block.sums, n) for n in numbers})

    @contextmanager
    def shown(self, console: Console, remark: Callable[[], str] = lambda: "") -> Iterator[None]:
        """Show it until the block ends: redrawn on a terminal, else a line now and then.

        ``remark()`` is looked at every 15 seconds and shown beside it where it is not empty.
        """
        stop = threading.Event()
        watcher = threading.Thread(target=self._show, args=(console, remark, stop), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def _show(self, console: Console, remark: Callable[[], str], stop: threading.Event) -> None:
        live = console.live(as_table(self._sums.look()))
        if live is None:
            self._say(console, remark, stop)
            return
        said, told = monotonic(), ""
        with live:
            while not stop.wait(_DRAW_SECONDS):
                if monotonic() - said >= SAY_EVERY_SECONDS:
                    said, told = monotonic(), remark()
                live.update(as_table(self._sums.look(), told), refresh=True)
            live.update(as_table(self._sums.look()), refresh=True)

    def _say(self, console: Console, remark: Callable[[], str], stop: threading.Event) -> None:
        said = monotonic()
        while not stop.wait(_DRAW_SECONDS):
            whole = self._sums.look()
            if monotonic() - said < SAY_EVERY_SECONDS:
                continue
            said = monotonic()
            text = "; ".join(filter(None, [as_text(whole), remark()]))
            if console.log_format == "json":
                console.event("progress", text, what="queries", **as_fields(whole))
            else:
                console.note(text)


def places_of(stages: Sequence[StageSpec]) -> list[Place]:
    """The lines of the stages: rerankers that share actors have one each."""
    places = []
    for stage in stages:
        numbers = [use.number for use in stage.kwargs.get("scorers", ())]
        if not numbers:
            places.append(Place(stage.name, stage.name))
        for number in numbers:
            name = stage.name if len(numbers) == 1 else f"{stage.name} {number}"
            places.append(Place(name, stage.name, number))
    return places


def as_text(whole: Whole) -> str:
    """Everything in one line of a log."""
    parts = [f"queries: {whole.committed:,} of {whole.planned:,} after {whole.seconds:.0f} s"]
    if whole.left is not None:
        parts[0] += f", {whole.left:.0f} s left"
    return "; ".join([*parts, *map(_line_as_text, whole.lines)])


def as_fields(whole: Whole) -> dict[str, Any]:
    """The same as fields of an event."""
    return {
        "done": whole.committed,
        "total": whole.planned,
        "seconds": round(whole.seconds, 1),
        "seconds_left": _rounded(whole.left),
        "stages": [_line_as_fields(line) for line in whole.lines],
    }


def as_table(whole: Whole, remark: str = "") -> RenderableType:
    """The same for a terminal, at most its width: a line for the run and one for each stage."""
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


def _line_as_text(line: Line) -> str:
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


def _line_as_fields(line: Line) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "stage": line.name,
        "queries": line.queries,
        "share": round(line.share, 4),
        "per_second": _rounded(line.rate),
        "seconds_left": _rounded(line.left),
    }
    return fields if line.pairs is None else {**fields, "pairs": line.pairs, "known": line.known}


def _percent(line: Line) -> int:
    """Down to a whole number: 100 is all of it."""
    return int(100 * line.share)


def _pairs(sums: Mapping[str, float], number: int) -> Pairs:
    asked = int(sums.get(pairs_of(number), 0))
    known = int(sums.get(f"{KNOWN}.{number}", 0))
    return Pairs(asked, known, asked - known)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
