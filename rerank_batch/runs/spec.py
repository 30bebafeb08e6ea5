"""spec.json of a run: what it is made of, how it was configured, and what it plans to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rerank_batch.runs.objects import from_json
from rerank_batch.schema import JsonObject

PROTOCOL = 4

_REQUIRED = ("job", "created", "made_of", "planned", "block_rows", "protocol")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What a run is, from its first moment on.

    ``made_of`` are the ingredients of its ``fingerprint``, ``generations`` those of the indexes by
    where an index lies, ``systems`` the names of those that it compares. ``planned`` queries are
    done in ``blocks`` of ``block_rows``. ``more`` holds what other versions wrote.
    """

    job: str
    command: str = "rerank"
    created: str
    fingerprint: str = ""
    made_of: Mapping[str, Any]
    generations: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    systems: Sequence[str] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    planned: int
    block_rows: int
    blocks: int = 0
    protocol: int = PROTOCOL
    nonce: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> "RunSpec":
        """A spec read back; `StorageError` where it is damaged."""
        value = from_json(raw, where, _REQUIRED)
        known = {name: value.pop(name) for name in _NAMES if name in value}
        return cls(**known, more=value)

    def to_json(self) -> JsonObject:
        """The object that spec.json and ``--json`` hold; it is without what was never set."""
        known = {name: getattr(self, name) for name in _NAMES}
        both = {**known, **self.more}
        return {n: v for n, v in both.items() if n not in _UNSET or v != _UNSET[n]}

    @property
    def reranker(self) -> Mapping[str, Any] | None:
        """The settings of the reranker; None of a run that has none."""
        settings: Mapping[str, Any] | None = self.config.get("reranker")
        return settings

    @property
    def cascade(self) -> list[Mapping[str, Any]]:
        """The settings of the rerankers, first to last; of a run that compares no systems."""
        return [] if self.reranker is None else list(self.reranker.get("stages") or [self.reranker])

    @property
    def depth(self) -> int:
        """How many candidates a query had; of a run that compares no systems."""
        depth: int = self.config["retrieval"]["depth"]
        return depth

    @property
    def compared(self) -> dict[str, Mapping[str, Any]]:
        """The settings of each system that the run compares: its cascade and its depth."""
        if not self.systems:
            return {}
        return dict(zip(self.systems, self.made_of["settings"]["systems"], strict=True))

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures that each row holds."""
        return tuple(self.config["evaluation"]["measures"])

    @property
    def scorers_made_of(self) -> Sequence[str]:
        """The fingerprint of each reranker, first to last."""
        return self.made_of["reranker"] or ()

    @property
    def index_made_of(self) -> Any:
        """What the index was made of; a list of that where several are read."""
        return self.made_of["index"]


_NAMES = [each.name for each in fields(RunSpec) if each.name != "more"]
_UNSET: JsonObject = {
    "command": "rerank",
    "fingerprint": "",
    "generations": {},
    "config": {},
    "systems": None,
    "versions": {},
    "blocks": 0,
    "nonce": "",
}
