"""A root in a local or shared folder: hard links create once, a lock file swaps."""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rerank_batch.errors import StorageError
from rerank_batch.storage.base import (
    Published,
    check_conditional_writes,
    check_key,
    sha256_file,
)


class Folder:
    """See `Root`; unfinished files are hidden ones beside their target."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._base = Path(uri).resolve()

    def path(self, key: str) -> str:
        """The absolute path of a key; a key that would leave the root is refused."""
        target = (self._base / check_key(key, self.uri)).resolve()
        if not target.is_relative_to(self._base):
            raise StorageError(f"{key!r} points outside the root {self.uri}")
        return str(target)

    def local(self, key: str) -> Path | None:
        """See `Root.local`."""
        return Path(self.path(key))

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

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Root.sizes`."""
        found = {}
        for entry in sorted(Path(self.path(prefix)).rglob("*")):
            with suppress(FileNotFoundError):
                if not entry.name.startswith(".") and entry.is_file():
                    found[str(entry.relative_to(self._base))] = entry.stat().st_size
        return dict(sorted(found.items()))

    def folders(self, prefix: str) -> list[str]:
        """See `Root.folders`."""
        base = Path(self.path(prefix))
        return sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []

    def publish(self, key: str, local: Path) -> Published:
        """See `Root.publish`."""
        with self._staged(key) as staged:
            shutil.copyfile(local, staged)
            _sync(staged)
            stored = Published(staged.stat().st_size, sha256_file(staged))
            staged.replace(self.path(key))
            _sync(Path(self.path(key)).parent)
        return stored

    def size(self, key: str) -> int | None:
        """See `Root.size`."""
        try:
            return Path(self.path(key)).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {key} under {self.uri}: {error}") from None

    def delete(self, keys: Iterable[str]) -> None:
        """See `Root.delete`; folders that end up empty go as well."""
        for key in keys:
            target = Path(self.path(key))
            try:
                target.unlink(missing_ok=True)
                (target.parent / f".{target.name}.lock").unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot delete {key} under {self.uri}: {error}") from None
            with suppress(OSError):
                for parent in target.parents:
                    if parent == self._base:
                        break
                    parent.rmdir()

    def stale_uploads(self, prefix: str, older_than_s: float) -> list[str]:
        """See `Root.stale_uploads`: staged files of writers that were killed."""
        now = time.time()
        found = []
        for entry in Path(self.path(prefix)).rglob(".*"):
            with suppress(FileNotFoundError):
                staged = entry.is_file() and not entry.name.endswith(".lock")
                if staged and now - entry.stat().st_mtime > older_than_s:
                    found.append(str(entry.relative_to(self._base)))
        return sorted(found)

    def drop_upload(self, upload: str) -> None:
        """See `Root.drop_upload`."""
        self.delete([upload])

    def check_writes(self) -> None:
        """See `Root.check_writes`: some network file systems have neither links nor locks."""
        try:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot write under {self.uri}: {error.strerror}; choose another folder as root, "
                "or mend its rights"
            ) from error
        check_conditional_writes(self, f".self-test-{uuid.uuid4().hex}")

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
