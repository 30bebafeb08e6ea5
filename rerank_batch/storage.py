"""A root that holds runs: read, create once, compare and swap, list, publish a file.

The verbs are those object storage can keep, so the run protocol is written once for every kind of
root. A folder keeps them with hard links and a lock file. Knows bytes and keys, not runs.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from rerank_batch.errors import ConfigError, InputError, StorageError

_CHUNK = 1 << 20


class Root(Protocol):
    """What the run protocol needs of a place to keep things."""

    uri: str

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""

    def create_once(self, key: str, data: bytes) -> bool:
        """Create the object unless it exists; False means that somebody was first."""

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object if it still holds ``expected`` (None: does not exist)."""

    def list(self, prefix: str) -> list[str]:
        """Keys under a prefix that ends in '/', sorted."""

    def publish(self, key: str, local: Path) -> None:
        """Copy a finished local file to the key, durable before this returns."""

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None where there is none."""

    def path(self, key: str) -> str:
        """A path or URI that Parquet readers open."""


def open_root(uri: str) -> Root:
    """The root behind a URI; only folders for now."""
    if "://" in uri:
        raise ConfigError(f"root {uri!r}: this version keeps runs in folders only")
    return Folder(uri)


class Folder:
    """A root in a local or shared folder with POSIX links and locks."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._base = Path(uri).resolve()

    def path(self, key: str) -> str:
        """The absolute path of a key; a key that would leave the root is refused."""
        target = (self._base / key).resolve()
        if not target.is_relative_to(self._base):
            raise StorageError(f"{key!r} points outside the root {self.uri}")
        return str(target)

    def read(self, key: str) -> bytes | None:
        """See `Root.read`."""
        try:
            return Path(self.path(key)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {key} under {self.uri}: {error}") from None

    def create_once(self, key: str, data: bytes) -> bool:
        """See `Root.create_once`: the link fails where the name exists, so one writer wins."""
        with self._staged(key) as staged:
            staged.write_bytes(data)
            _sync(staged)
            try:
                os.link(staged, self.path(key))
            except FileExistsError:
                return False
            _sync(Path(self.path(key)).parent)
            return True

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """See `Root.swap`: compare and replace under a lock beside the object."""
        with self._staged(key) as staged, self._locked(key):
            if self.read(key) != expected:
                return False
            staged.write_bytes(data)
            _sync(staged)
            staged.replace(self.path(key))
            _sync(Path(self.path(key)).parent)
            return True

    def list(self, prefix: str) -> list[str]:
        """See `Root.list`."""
        base = Path(self.path(prefix))
        return sorted(
            str(entry.relative_to(self._base))
            for entry in base.rglob("*")
            if entry.is_file() and not entry.name.startswith(".")
        )

    def publish(self, key: str, local: Path) -> None:
        """See `Root.publish`."""
        with self._staged(key) as staged:
            shutil.copyfile(local, staged)
            _sync(staged)
            staged.replace(self.path(key))
            _sync(Path(self.path(key)).parent)

    def size(self, key: str) -> int | None:
        """See `Root.size`."""
        try:
            return Path(self.path(key)).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {key} under {self.uri}: {error}") from None

    @contextmanager
    def _staged(self, key: str) -> Iterator[Path]:
        """A hidden temporary name beside the target, gone afterwards whatever happens."""
        target = Path(self.path(key))
        staged = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield staged
        except OSError as error:
            raise StorageError(f"cannot write {key} under {self.uri}: {error}") from error
        finally:
            with suppress(OSError):
                staged.unlink()

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        target = Path(self.path(key))
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex, read in pieces of 1 MiB."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return checksum.hexdigest()


def input_files(path: str, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """The files that an input path names: a file, a folder searched to the bottom, or a glob.

    Sorted by path. Hidden files and those starting with ``_`` are passed over in folders, as
    Parquet writers use them for their own notes.

    Raises:
        InputError: nothing is there; the message says what was looked for.
    """
    if "://" in path:
        raise ConfigError(f"{what} path {path!r}: this version reads local files only")
    if any(sign in path for sign in "*?[") and not Path(path).exists():
        anchor = Path(path).anchor or "."
        pattern = str(Path(path).relative_to(anchor)) if Path(path).anchor else path
        try:
            found = sorted(p for p in Path(anchor).glob(pattern) if p.is_file())
        except ValueError as error:
            raise InputError(f"{what}: {path!r} is no glob: {error}") from None
        if not found:
            raise InputError(f"{what}: no file matches {path!r}")
        return found
    target = Path(path)
    if target.is_dir():
        found = sorted(
            p
            for p in target.rglob("*")
            if p.is_file()
            and p.name.endswith(suffixes)
            and not any(part.startswith((".", "_")) for part in p.relative_to(target).parts)
        )
        if not found:
            raise InputError(f"{what}: no {' or '.join(suffixes)} file in the folder {path}")
        return found
    if not target.is_file():
        raise InputError(f"{what}: nothing at {path}")
    return [target]
