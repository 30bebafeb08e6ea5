"""What may keep Ray from starting, looked at before it is asked: it waits for minutes in silence.

A cluster is called until it answers or `compute.connect_seconds` are over; where Ray is started
here, the folder for its files must have room and a short name. Starts no Ray itself.
"""

import errno
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rerank_batch.config import ComputeConfig
from rerank_batch.config.paths import home, temporary_home
from rerank_batch.errors import ComputeError, ConfigError, StorageError

T = TypeVar("T")
Note = Callable[[str], None]

_NOTE_AFTER_SECONDS = 5.0
_NOTE_OF_THIS_MACHINE_AFTER_SECONDS = 15.0
_AGAIN_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
_NEEDED_BYTES = 32 << 20
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_SOCKET = "ray/session_2026-01-02_03-04-05_678901_4194304/sockets/plasma_store"
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD = 9
_SETTINGS = 4  # the type of the frame that every gRPC server sends first


def address_of(compute: ComputeConfig) -> str | None:
    """The cluster to use; None where Ray is to be started on this machine."""
    address = compute.address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def check_ray(compute: ComputeConfig, note: Note) -> float:
    """Wait until the cluster answers, or see whether Ray can start here; the seconds left.

    Raises:
        ConfigError: an address that is none.
        ComputeError: the cluster does not answer in time, or Ray cannot use its folder.
        StorageError: the disk that Ray would write to is full.
    """
    _have_a_home()
    address = address_of(compute)
    if address is None:
        check_scratch(compute.object_store_mb << 20)
        return compute.connect_seconds
    began = time.monotonic()
    place = _host_and_port(address)
    if place is not None:
        _reach(address, *place, compute.connect_seconds, note)
    return max(compute.connect_seconds - (time.monotonic() - began), _ANSWER_SECONDS)


def _have_a_home() -> None:
    """Ray keeps a file in the home folder of its user, which a container may not have."""
    stated = home()
    if stated is not None:
        there = Path(stated) / ".ray"
        if os.access(there if there.exists() else stated, os.W_OK):
            return
        models = Path(stated) / ".cache" / "huggingface"
        if models.is_dir() and "XDG_CACHE_HOME" not in os.environ:
            os.environ.setdefault("HF_HOME", str(models))
    os.environ["HOME"] = str(temporary_home())


def check_scratch(object_store_bytes: int) -> None:
    """See whether Ray can have its sockets, logs and, without enough of /dev/shm, its memory here.

    Raises:
        ComputeError: the folder's name is too long, or it cannot be written to.
        StorageError: it has no room.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "TMPDIR")
    folder = Path(os.environ.get(name) or "/tmp")
    longest = len(os.fsencode(folder / _SOCKET))
    if longest > _LONGEST_SOCKET:
        raise ComputeError(
            f"Ray cannot start: its sockets lie under {name} ({folder}) and their paths would have "
            f"{longest} bytes, {_LONGEST_SOCKET} at most are allowed; set TMPDIR or RAY_TMPDIR to "
            "a shorter path, such as /tmp"
        )
    needed = _NEEDED_BYTES
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < object_store_bytes:
        needed += object_store_bytes
    next_step = "free space there, or set TMPDIR or RAY_TMPDIR to a folder on another disk"
    try:
        (folder / "ray").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "ray") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        if _is_full(error):
            raise StorageError(
                f"Ray cannot start: {name} ({folder}) is full ({error.strerror}); {next_step}"
            ) from None
        raise ComputeError(
            f"Ray cannot start: it keeps its files under {name} ({folder}), which cannot be "
            f"written to ({error.strerror}); set TMPDIR or RAY_TMPDIR to a folder that can"
        ) from None
    if free < needed:
        raise StorageError(
            f"Ray cannot start: {name} ({folder}) has {free / 1e6:,.0f} MB free and Ray needs "
            f"{needed / 1e6:,.0f} MB (with compute.object_store_mb where /dev/shm is too small for "
            f"it); {next_step}"
        )


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def without_stderr(active: bool) -> Iterator[Callable[[Note], Note]]:
    """Ray's C++ core announces its log level on file descriptor 2; its errors are exceptions.

    What comes is a function that makes others be heard all the same.
    """
    if not active:
        yield lambda note: note
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)

    def audible(note: Note) -> Note:
        def noted(text: str) -> None:
            os.dup2(kept, 2)
            try:
                note(text)
                sys.stderr.flush()
            finally:
                os.dup2(nothing, 2)

        return noted

    try:
        os.dup2(nothing, 2)
        yield audible
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def start_here(start: Callable[[], T], note: Note) -> T:
    """Ray, started on this machine; if that takes long, somebody is told."""
    after = _NOTE_OF_THIS_MACHINE_AFTER_SECONDS
    with _note_after(after, "waiting for Ray to start on this machine", note):
        return start()


def connected(connect: Callable[[], T], address: str, seconds: float, note: Note) -> T:
    """What ``connect`` returns, if it does within so many seconds: it may block for ever.

    Raises:
        ComputeError: it does not.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(connect())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="connect-to-ray")
    with _note_after(_NOTE_AFTER_SECONDS, f"waiting for the Ray cluster at {address}", note):
        thread.start()
        thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise ComputeError(_unreachable(address, "it answers, but lets nobody join"))
    return results[0]


@contextmanager
def _note_after(after: float, text: str, note: Note) -> Iterator[None]:
    timer = threading.Timer(after, note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Where to call; None for an address that only Ray can look up."""
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "ray") or address == "auto":
        return None
    host, colon, port = rest.partition("/")[0].partition("?")[0].rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"compute.address or RAY_ADDRESS: {address!r} is no address of a Ray cluster; write "
            "HOST:PORT, ray://HOST:PORT, auto, or local for a Ray of its own"
        )
    return host.strip("[]"), int(port)


def _reach(address: str, host: str, port: int, seconds: float, note: Note) -> None:
    """Call until something answers as Ray does.

    Raises:
        ComputeError: nothing does in time.
    """
    until = time.monotonic() + seconds
    with _note_after(_NOTE_AFTER_SECONDS, f"waiting for the Ray cluster at {address}", note):
        while True:
            left = until - time.monotonic()
            why = _why_not_ray(host, port, time.monotonic() + min(_ANSWER_SECONDS, left))
            if why is None:
                return
            if (left := until - time.monotonic()) <= _AGAIN_SECONDS:
                raise ComputeError(_unreachable(address, f"{why}, for {seconds:g} s"))
            time.sleep(_AGAIN_SECONDS)


def _why_not_ray(host: str, port: int, until: float) -> str | None:
    """None if a gRPC server answers there."""

    def left() -> float:
        return max(until - time.monotonic(), 0.1)

    try:
        with socket.create_connection((host, port), timeout=left()) as call:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return None  # it says nothing in plain text
            call.sendall(_HELLO)
            answer = b""
            while len(answer) < _FRAME_HEAD:
                call.settimeout(left())
                if time.monotonic() > until:
                    raise TimeoutError
                if not (piece := call.recv(64)):
                    return "what listens there is no Ray"
                answer += piece
    except socket.gaierror as error:
        return f"{host} has no address ({error.strerror})"
    except TimeoutError:
        return "no answer"
    except (OSError, UnicodeError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    return None if answer[3] == _SETTINGS else "what listens there is no Ray"


def _unreachable(address: str, why: str) -> str:
    return (
        f"the Ray cluster at {address} cannot be reached: {why}. See that it runs (ray status) and "
        "that this machine reaches it, mend compute.address or RAY_ADDRESS, unset it to start a "
        "Ray here, or wait longer with compute.connect_seconds"
    )
