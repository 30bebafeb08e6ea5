"""What a writer records of the files it publishes, and the nonces of the objects it creates."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """A published file: key relative to its run, bytes, sha256, rows (or pairs)."""

    key: str
    bytes: int
    sha256: str
    rows: int


def new_nonce() -> str:
    """A word nobody else has: it tells whose object one is when a write got no answer."""
    return uuid.uuid4().hex
