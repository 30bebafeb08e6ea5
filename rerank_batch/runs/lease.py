"""Who drives a run, and whether that driver still lives.

A live driver swaps its lease every few seconds. Somebody who wants the run watches whether that
goes on; no clock of one machine is compared with another's. Being wrong costs work and never
results: what keeps two drivers apart is the epoch, see `runs`.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from rerank_batch.errors import StorageError
from rerank_batch.runs.objects import epoch_key, from_json, to_json
from rerank_batch.schema import JsonObject
from rerank_batch.storage import Root

_RENEWALS_PER_LEASE = 4
_LOOKS_PER_LEASE = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """A driver process: where it runs, and when it started, so that a pid is never mistaken."""

    host: str
    pid: int
    started: float
    machine: str

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"

    @classmethod
    def me(cls) -> "Owner":
        """This process."""
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), started, _machine())

    def is_dead(self) -> bool:
        """True if it ran on this machine and is gone; elsewhere nobody can tell this way."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return ended or abs(process.create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


class Lease:
    """Keeps ``key`` fresh from a thread until the block ends, and then gives it back.

    Where the run is taken over, ``lost`` is set and ``on_lost`` called once, from that thread.
    """

    def __init__(
        self,
        root: Root,
        key: str,
        epoch: int,
        owner: Owner,
        seconds: float,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.lost = False
        self._on_lost = on_lost
        self._root, self._key, self._epoch = root, key, epoch
        self._owner, self._every = owner, seconds / _RENEWALS_PER_LEASE
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_on, daemon=True)

    def __enter__(self) -> "Lease":
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._renew(released=True)

    def _renew_on(self) -> None:
        while not self._stop.wait(self._every):
            self._renew()
            if self.lost:
                self._on_lost()
                return

    def _renew(self, released: bool = False) -> None:
        """One swap; storage that fails for a moment is no reason to stop a run."""
        self._beat += 1
        mine = {
            "epoch": self._epoch,
            "owner": asdict(self._owner),
            "beat": self._beat,
            "released": released,
        }
        try:
            current = self._root.read(self._key)
            newer = current is not None and _lease(current, self._key)["epoch"] > self._epoch
            # The next epoch is there before its lease is, and after an abort without any.
            if newer or self._root.size(epoch_key(_run(self._key), self._epoch + 1)) is not None:
                self.lost = True
                return
            self._root.swap(self._key, to_json(mine), expected=current)
        except StorageError as error:
            logger.warning("the lease could not be renewed: %s", error)


def living_owner(
    root: Root,
    key: str,
    epoch: int,
    owner: Owner,
    seconds: float,
    note: Callable[[str], None],
) -> Owner | None:
    """The driver of ``epoch``, if it lives; watches the lease for up to ``seconds`` to find out.

    ``owner`` is the one that the epoch itself names: a driver may die before its first lease.
    """
    first = root.read(key)
    if first is not None:
        lease = _lease(first, key)
        if lease["epoch"] == epoch:
            if lease["released"]:
                return None
            owner = owner_from(lease["owner"], key)
    if owner.is_dead():
        return None
    note(f"the run belongs to {owner}; watching up to {seconds:.0f} s whether that driver lives")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(seconds / _LOOKS_PER_LEASE)
        now = root.read(key)
        if now is not None and now != first:
            lease = _lease(now, key)
            return None if lease["released"] else owner_from(lease["owner"], key)
        if owner.is_dead():
            return None
    return None


def owner_from(value: JsonObject, where: str) -> Owner:
    """An owner read back from an epoch or a lease."""
    try:
        owner = Owner(**value)
        return Owner(owner.host, int(owner.pid), float(owner.started), owner.machine)
    except (TypeError, ValueError) as error:
        raise StorageError(f"{where} is damaged: it names no owner: {error}") from None


def _run(lease_key: str) -> str:
    """What all keys of the run begin with."""
    return lease_key.removesuffix("lease.json")


def _lease(raw: bytes, key: str) -> JsonObject:
    lease = from_json(raw, key, ("epoch", "released", "owner"))
    if not isinstance(lease["epoch"], int):
        raise StorageError(f"{key} is damaged: its epoch is no number")
    return lease


def _machine() -> str:
    """This kernel and process namespace: within it a pid means one process."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)
