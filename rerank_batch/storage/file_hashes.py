"""sha256 of a folder's files, kept beside them, so that a node reads gigabytes of weights once.

A kept sum counts while the file's size, inode and times are those it was computed for. A file that
changed less than two seconds before it was hashed is hashed again the next time: a clock tick may
hide a later change of the same size.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from rerank_batch.storage.base import sha256_file

KEPT = ".rerank_batch.sha256"
"""The file that holds the sums of a folder, in it; no model library reads it."""

_SETTLED_NS = 2 * 10**9


def file_hashes(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    """sha256 by path within the folder, in the order of ``files``; all lie under ``folder``.

    A folder that cannot be written is hashed every time.

    Raises:
        OSError: a file cannot be read.
    """
    kept = folder / KEPT
    with _one_at_a_time(kept):
        before = _read(kept)
        found = {str(f.relative_to(folder)): _entry(f, folder, before) for f in files}
        lasting = {name: entry for name, entry in found.items() if entry[:-1] != [None]}
        if lasting != before:
            _write(kept, lasting)
    return {name: str(entry[-1]) for name, entry in found.items()}


@contextmanager
def _one_at_a_time(kept: Path) -> Iterator[None]:
    """Actors that start together wait for the first of them, which hashes for all."""
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that is read-only: each hashes for itself
            stack.enter_context(FileLock(f"{kept}.lock"))
        yield


def _entry(file: Path, folder: Path, before: dict[str, list[Any]]) -> list[Any]:
    """What identifies the file's state, and its sum at the end; [None, sum] of a state that may
    not last."""
    state = _state(file)
    entry = before.get(str(file.relative_to(folder)))
    if entry is not None and entry[:-1] == state:
        return entry
    checksum = sha256_file(file)
    is_settled = time.time_ns() - max(state[1:3]) > _SETTLED_NS and _state(file) == state
    return [*state, checksum] if is_settled else [None, checksum]


def _state(file: Path) -> list[int]:
    """Bytes, times of change of content and of entry in ns, and inode."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(kept: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return {str(name): list(entry) for name, entry in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # not there or damaged: everything is hashed


def _write(kept: Path, entries: dict[str, list[Any]]) -> None:
    """In one step, so that nobody reads half of it; a folder that is read-only stays as it is."""
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=kept.name, dir=kept.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(entries, out)
        Path(name).chmod(0o644)
        Path(name).replace(kept)
