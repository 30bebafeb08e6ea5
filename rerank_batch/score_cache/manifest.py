"""The manifest of a score cache: the segments that count, and those that no longer do.

One small JSON object. Knows no storage but the bytes.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.errors import StorageError
from rerank_batch.storage import Wanted

_NAME = re.compile(r"[a-z0-9_-]+\.arrow")


@dataclass(frozen=True)
class ListedSegment:
    """A segment: its object, and how many pairs it holds of each day."""

    key: str
    bytes: int
    sha256: str
    days: Mapping[int, int]

    @property
    def pairs(self) -> int:
        """Pairs in the segment."""
        return sum(self.days.values())

    @property
    def wanted(self) -> Wanted:
        """The object, to be fetched."""
        return Wanted(self.key, self.bytes, self.sha256)


@dataclass(frozen=True)
class DroppedSegment:
    """A segment that was listed until then (seconds since 1970) and may still be in use."""

    key: str
    at: float


@dataclass(frozen=True)
class CacheManifest:
    """``segments`` oldest first, ``added`` the ids of runs whose scores are in them or were.

    ``seconds_per_pair`` is what the last of those runs took to score one.
    """

    segments: tuple[ListedSegment, ...] = ()
    added: tuple[str, ...] = ()
    dropped: tuple[DroppedSegment, ...] = ()
    seconds_per_pair: float = 0.0

    def to_json(self) -> bytes:
        """The object; unlike any other, as `Root.create_once` wants it."""
        return json.dumps({**asdict(self), "nonce": uuid.uuid4().hex}, indent=1).encode()

    @classmethod
    def from_json(cls, raw: bytes, folder: str) -> "CacheManifest":
        """The object read back; its segments must lie directly in ``folder`` ("…/").

        Raises:
            StorageError: it is damaged; the message says how.
        """
        try:
            value = json.loads(raw)
            manifest = cls(
                tuple(_listed(entry) for entry in _list(value["segments"])),
                tuple(str(run_id) for run_id in _list(value["added"])),
                tuple(
                    DroppedSegment(str(entry["key"]), float(entry["at"]))
                    for entry in _list(value["dropped"])
                ),
                float(value.get("seconds_per_pair", 0.0)),
            )
        except KeyError as error:
            raise StorageError(f"{error} is missing") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StorageError(str(error)) from None
        keys = [each.key for each in manifest.segments] + [each.key for each in manifest.dropped]
        for key in keys:
            # What is dropped will be deleted: never what lies anywhere else.
            if not key.startswith(folder) or not _NAME.fullmatch(key[len(folder) :]):
                raise StorageError(f"it lists {key!r}, outside {folder}")
        if len(keys) != len(set(keys)):
            raise StorageError("it lists a segment twice")
        return manifest


def _listed(entry: Mapping[str, Any]) -> ListedSegment:
    days = {int(day): int(pairs) for day, pairs in entry["days"].items()}
    listed = ListedSegment(str(entry["key"]), int(entry["bytes"]), str(entry["sha256"]), days)
    if not days or min(days.values()) < 1 or listed.bytes < 1:
        raise ValueError(f"{listed.key} is listed without content")
    return listed


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value
