"""Peak memory of a job: this process and everything it started."""

import threading
from pathlib import Path

import psutil


class PeakMemory:
    """Peak memory of this process and everything it started, in bytes.

    Proportional set size where the system tells it: a page that ten actors share counts once. To
    read it, the kernel walks through all pages of a process, which on two cores can be seen in how
    fast they score: so it is read ever more rarely, at last every 20 seconds.
    """

    def __init__(self, first_seconds: float = 2.0, every_seconds: float = 20.0) -> None:
        self.bytes = 0
        self._first, self._every = first_seconds, every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        wait = self._first
        while not self._stop.wait(wait):
            family = [me, *me.children(recursive=True)]
            self.bytes = max(self.bytes, sum(_memory(process) for process in family))
            wait = min(1.2 * wait, self._every)


def _memory(process: psutil.Process) -> int:
    """Bytes of one process; the kernel's own sum where it keeps one, which costs little to read."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * int(rollup.partition("\nPss:")[2].split(maxsplit=1)[0])
    except (OSError, IndexError, ValueError):
        pass
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
