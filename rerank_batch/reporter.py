"""What a job reports while it works: notes, events, progress. Silent unless you choose otherwise.

Every workflow takes a `Reporter`. The base class says nothing, so a library call prints nothing;
the command line has one for terminals and logs, and `TqdmReporter` is for notebooks.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from rerank_batch.progress import Snapshot

_POLL_SECONDS = 0.5

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_STEERING_OR_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Reporter:
    """Receives what a job reports, and drops it.

    ``run_id`` is set by a job as soon as it knows it; ``verbose`` asks for the logs of Ray and of
    its workers.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self.run_id: str | None = None

    def note(self, text: str) -> None:
        """Report a line about the work in progress."""

    def event(self, event: str, message: str, level: str = "info", **fields: Any) -> None:
        """Report something that a machine may want to find in a log, with its fields."""

    def progress(
        self,
        what: str,
        total: int,
        done: Callable[[], int],
        remark: Callable[[], str] = lambda: "",
    ) -> AbstractContextManager[None]:
        """Report ``done()`` of ``total`` until the context ends.

        ``remark()`` is read every 15 seconds; text it returns is reported beside the numbers.
        """
        return _silence()

    def run_progress(
        self, look: Callable[[], Snapshot], remark: Callable[[], str] = lambda: ""
    ) -> AbstractContextManager[None]:
        """Report a whole run, stage by stage, until the context ends; ``remark`` as above."""
        return _silence()


class TqdmReporter(Reporter):
    """Notes as lines and progress as one line that is redrawn, as in a notebook cell."""

    def __init__(self, file: TextIO | None = None, verbose: bool = False) -> None:
        super().__init__(verbose)
        self._file = file

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        print(visible(text), file=self._file or sys.stderr, flush=True)

    def progress(
        self,
        what: str,
        total: int,
        done: Callable[[], int],
        remark: Callable[[], str] = lambda: "",
    ) -> AbstractContextManager[None]:
        """See `Reporter.progress`."""
        return self._redrawn(lambda: (what, done(), total))

    def run_progress(
        self, look: Callable[[], Snapshot], remark: Callable[[], str] = lambda: ""
    ) -> AbstractContextManager[None]:
        """See `Reporter.run_progress`."""

        def line() -> tuple[str, int, int]:
            whole = look()
            return "queries", whole.committed, whole.planned

        return self._redrawn(line)

    @contextmanager
    def _redrawn(self, line: Callable[[], tuple[str, int, int]]) -> Iterator[None]:
        from tqdm import tqdm

        stop = threading.Event()
        what, done, total = line()
        with tqdm(desc=what, total=total, initial=done, file=self._file or sys.stderr) as bar:

            def redraw() -> None:
                while not stop.wait(_POLL_SECONDS):
                    bar.update(line()[1] - bar.n)

            watcher = threading.Thread(target=redraw, daemon=True)
            watcher.start()
            try:
                yield
            finally:
                stop.set()
                watcher.join()
                bar.update(line()[1] - bar.n)


def visible(text: str) -> str:
    """The text with control characters and stray bytes escaped: ``\\x1b``.

    Line ends and tabs stay.
    """
    return _STEERING.sub(lambda match: _escaped(match.group()), text)


def in_one_line(text: str) -> str:
    """The same for an id or a query: line ends and tabs are escaped as well."""
    return _STEERING_OR_BREAKING.sub(lambda match: _escaped(match.group()), text)


@contextmanager
def _silence() -> Iterator[None]:
    yield


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that no text could be made of
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
