"""Objects of a bucket as local files: one download per node, checked, within a size limit.

Files are named by their sha256, so every index and run on the node shares them and nothing is ever
stale. A file that is thrown out while a process has it mapped stays readable for that process.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import stamina
from filelock import FileLock, Timeout

from rerank_batch.errors import ConfigError, IndexMismatch, StorageError
from rerank_batch.storage.base import Root, sha256_file
from rerank_batch.storage.inputs import open_file

_CHUNK = 8 << 20
_DOWNLOADS = 4
_CHECK_AGAIN_SECONDS = 24 * 3600
_SIDE = ".checked"


@dataclass(frozen=True)
class Wanted:
    """An object to have as a local file: its key, its bytes and their sha256 (hex)."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NodeCache:
    """A folder on each node that holds at most ``max_bytes`` of downloaded objects."""

    folder: Path
    max_bytes: int

    def fetch(self, root: Root, wanted: Sequence[Wanted]) -> list[Path]:
        """Local files with the wanted content, in order.

        Files of a folder are used where they are. Several processes of a node may ask at once; each
        object is downloaded by one of them.

        Raises:
            ConfigError: together they are larger than the cache may be.
            IndexMismatch: an object is not what its sha256 says.
            StorageError: an object is missing, or the disk cannot be written.
        """
        local = [root.local(item.key) for item in wanted]
        remote = [item for item, file in zip(wanted, local, strict=True) if file is None]
        self.check_room(root, wanted)
        if remote:
            with ThreadPoolExecutor(_DOWNLOADS) as pool:
                list(pool.map(lambda item: self._have(root, item), remote))
            self._evict(keep={item.sha256 for item in remote})
        return [file or self._file(item) for item, file in zip(wanted, local, strict=True)]

    def check_room(self, root: Root, wanted: Sequence[Wanted]) -> None:
        """Refuse what can never fit; see `fetch`."""
        sizes = {item.sha256: item.bytes for item in wanted if root.local(item.key) is None}
        if sum(sizes.values()) > self.max_bytes:
            raise ConfigError(
                f"{root.uri} needs {sum(sizes.values()) / 1e9:.2f} GB of node cache, which may "
                f"hold {self.max_bytes / 1e9:.2f} GB; raise storage.cache_gb"
            )

    def room(self) -> int:
        """How many bytes it may hold on this node: its limit, or what the disk has for it."""
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        held = 0
        for file in self.folder.glob("??/*"):
            with suppress(FileNotFoundError):  # another process may throw it out in this moment
                held += file.stat().st_size
        return min(self.max_bytes, shutil.disk_usage(existing).free + held)

    def _file(self, wanted: Wanted) -> Path:
        return self.folder / wanted.sha256[:2] / wanted.sha256

    def _have(self, root: Root, wanted: Wanted) -> None:
        file = self._file(wanted)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not _is_whole(file, wanted):
                    self._download(root, wanted, file)
                os.utime(_side(file))
        except OSError as error:
            raise StorageError(f"the node cache {self.folder} cannot be used: {error}") from None

    def _download(self, root: Root, wanted: Wanted, file: Path) -> None:
        """Into a hidden name first; a copy with another checksum is fetched again before it is
        called damage, because a connection that broke off looks the same."""
        uri = root.path(wanted.key)
        staged = file.with_name(f".{file.name}.part")
        try:
            for attempt in stamina.retry_context(on=IndexMismatch, attempts=3, timeout=None):
                with attempt:
                    checksum = hashlib.sha256()
                    with open_file(uri) as source, staged.open("wb") as sink:
                        while chunk := _read(source, uri):
                            checksum.update(chunk)
                            sink.write(chunk)
                    if checksum.hexdigest() != wanted.sha256:
                        raise IndexMismatch(
                            f"{uri} is not what was built (sha256 differs); build it again"
                        )
            staged.replace(file)
        finally:
            staged.unlink(missing_ok=True)
        _remember(file)

    def _evict(self, keep: set[str]) -> None:
        """Throw out what was used longest ago until the rest fits."""
        with FileLock(str(self.folder / ".evict.lock")):
            files = [f for f in self.folder.glob("??/*") if len(f.name) == 64]
            held = {file: file.stat().st_size for file in files}
            surplus = sum(held.values()) - self.max_bytes
            for file in sorted(files, key=_last_used):
                if surplus <= 0:
                    break
                if file.name not in keep:
                    # Whoever fetches it in this moment holds its lock.
                    with suppress(Timeout), FileLock(f"{file}.lock", timeout=0):
                        surplus -= held[file]
                        for part in (file, _side(file)):
                            part.unlink(missing_ok=True)


def _read(source: pa.NativeFile, uri: str) -> bytes:
    try:
        return bytes(source.read(_CHUNK))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"reading {uri} failed: {error}") from None


def _is_whole(file: Path, wanted: Wanted) -> bool:
    """Whether the cached file is what it should be; hashed again once a day, or when it changed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        state = file.stat()
        checked = json.loads(_side(file).read_text(encoding="ascii"))
        fresh = time.time() - checked["hashed"] < _CHECK_AGAIN_SECONDS
        if state.st_size != wanted.bytes:
            return False
        if fresh and checked["mtime_ns"] == state.st_mtime_ns:
            return True
        if sha256_file(file) == wanted.sha256:
            _remember(file)
            return True
    return False


def _remember(file: Path) -> None:
    checked = {"mtime_ns": file.stat().st_mtime_ns, "hashed": time.time()}
    _side(file).write_text(json.dumps(checked), encoding="ascii")


def _side(file: Path) -> Path:
    return file.with_name(file.name + _SIDE)


def _last_used(file: Path) -> float:
    with suppress(OSError):
        return _side(file).stat().st_mtime
    return 0.0
