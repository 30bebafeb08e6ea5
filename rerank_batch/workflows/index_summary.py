"""The summary of an index job: what ``build-index`` prints, and its ``--json`` object."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from rerank_batch.remarks import Remark, remark_objects
from rerank_batch.schema import JsonObject


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """An index, and what the job did or would do to it.

    ``generation`` and ``dimension`` are None where a dry run tells of an index that is not built.
    ``encoded``, ``shards_reused``, ``shards_written`` and ``peak_memory_gb`` are None where the job
    had no such step. ``changes`` counts documents; None without an update. ``seconds`` are those of
    each step.
    """

    index: str
    dry_run: bool
    built: bool = False
    fingerprint: str
    generation: str | None = None
    kind: str
    bm25: JsonObject | None
    shards: int
    documents: int
    dimension: int | None = None
    dropped: Mapping[str, int]
    recall_at_100: float | None
    changes: Mapping[str, int] | None = None
    files_read: Mapping[str, Mapping[str, int]]
    remarks: tuple[Remark, ...] = ()
    seconds: Mapping[str, float]
    peak_memory_gb: float | None = None
    encoded: int | None = None
    shards_reused: int | None = None
    shards_written: int | None = None

    def to_json(self) -> JsonObject:
        """The object that ``--json`` gives; without the fields of steps that the job had not."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["remarks"] = remark_objects(self.remarks)
        return {
            name: value
            for name, value in values.items()
            if value is not None or name in _ALWAYS_GIVEN
        }


_ALWAYS_GIVEN = ("bm25", "recall_at_100", "changes")


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of the steps as the summary has them."""
    return {name: round(value, 2) for name, value in seconds.items()}
