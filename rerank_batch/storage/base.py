"""The interface of a root, a place where objects are kept: a folder or a prefix of a bucket.

The verbs are those object storage can keep, so everything above is written once for folders and
s3://. Knows bytes and keys, not runs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rerank_batch.errors import StorageError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """What an upload stored: bytes, and their sha256 as hex."""

    bytes: int
    sha256: str


class Root(Protocol):
    """A folder or a prefix of a bucket. Small and picklable; holds no credentials.

    Every method raises `StorageError` when the place cannot be used, after bounded retries.
    """

    uri: str

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""

    def create_once(self, key: str, data: bytes) -> bool:
        """Create the object unless it exists; False means that somebody was first.

        ``data`` must be unlike anybody else's (carry a nonce): where the answer to a write is lost,
        reading back is what tells whose object it is.
        """

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace the object if it still holds ``expected`` (None: does not exist).

        False can also mean: replaced, the answer lost, and replaced again by somebody else.
        """

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys under a prefix that ends in '/' (or is empty), sorted, with their bytes."""

    def folders(self, prefix: str) -> list[str]:
        """Names directly under a prefix that have something below them, sorted."""

    def publish(self, key: str, local: Path) -> Published:
        """Copy a finished local file to the key, checked and durable before this returns."""

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None where there is none."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is gone already is no error."""

    def stale_uploads(self, prefix: str, older_than_s: float) -> list[str]:
        """Uploads under a prefix that began so long ago and never ended."""

    def drop_upload(self, upload: str) -> None:
        """Remove what `stale_uploads` named."""

    def check_writes(self) -> None:
        """Refuse a place where creating once or swapping does not hold."""

    def path(self, key: str) -> str:
        """An absolute path or an s3:// URI."""

    def local(self, key: str) -> Path | None:
        """The file itself where it lies on this machine, to be mapped in place."""


def check_key(key: str, uri: str) -> str:
    """The key, unless it would leave its root."""
    if key.startswith("/") or ".." in key.split("/"):
        raise StorageError(f"{key!r} points outside the root {uri}")
    return key


def check_conditional_writes(root: Root, probe: str) -> None:
    """Try what the protocol rests on with an object of its own: two creations, a stale swap.

    Raises:
        StorageError: the place ignores conditions (as some S3 look-alikes and network file systems
            do), so two drivers could both win.
    """
    try:
        holds = (
            root.create_once(probe, b"one " + probe.encode())
            and not root.create_once(probe, b"two " + probe.encode())
            and not root.swap(probe, b"three", expected=b"stale")
            and root.swap(probe, b"four", expected=b"one " + probe.encode())
            and not root.swap(probe, b"five", expected=b"one " + probe.encode())
            and root.read(probe) == b"four"
        )
    finally:
        root.delete([probe])
    if not holds:
        raise StorageError(
            f"{root.uri} does not keep conditional writes (create once, compare and swap); a run "
            "there could be written by two drivers. Use S3, a store that honours If-None-Match and "
            "If-Match, or a local folder"
        )


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex, read in pieces of 1 MiB."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return checksum.hexdigest()
