"""A finished label run as a dataset: canonical rows, the formats, and the card, in one folder.

    <out>/card.json, README.md               what is in it; card.json is whole when all of it is
    <out>/rows/<split>.parquet               the canonical rows, `rows.LABELS`
    <out>/<format>/<split>.parquet or .jsonl

Everything follows from the run alone: writing again gives the same files. The rows stream through,
so memory does not grow with them.
"""

import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.config import LabelFormat
from rerank_batch.errors import ConfigError, RunConflict
from rerank_batch.labels import card
from rerank_batch.labels.formats import FORMATS, Query, Row
from rerank_batch.labels.mining import order_key
from rerank_batch.labels.rows import LABELS, SPLITS, labelled_batches, unfolded
from rerank_batch.run import Run
from rerank_batch.storage import Root

CARD, README = "card.json", "README.md"
ROWS = "rows"

_SAMPLES = 20


@dataclass
class _Facts:
    """What is counted while the rows pass."""

    rows: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    without_score: int = 0
    samples: list[tuple[bytes, str, Row]] = field(default_factory=list)


class _Writer(Protocol):
    """Takes rows and, at the end, has them in a file."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append."""

    def close(self) -> None:
        """Finish the file."""


def write_dataset(
    run: Run, out: Root, formats: Sequence[LabelFormat], negatives: int, license: str | None
) -> dict[str, Any]:
    """Write a finished label run to ``out`` and return the card.

    What an earlier dataset left there is replaced.

    Raises:
        RunConflict: the run is not complete, or holds no labels.
        ConfigError: ``out`` holds something that is no dataset of ours.
    """
    final = run.finished()
    if "labels" not in final:
        raise RunConflict(f"run {run.run_id} holds results, no labels: see make-labels")
    _clear(out)
    facts = _Facts()
    with tempfile.TemporaryDirectory() as folder:
        files = _write(run, Path(folder), formats, negatives, facts)
        names = [str(file.relative_to(folder)) for file in files]
        # Whoever dies from here on has left files that the next one knows and may replace.
        begun = {"state": "being written", "files": dict.fromkeys(names)}
        _publish(out, Path(folder), CARD, json.dumps(begun))
        stored = {}
        for name, (file, rows) in zip(names, files.items(), strict=True):
            published = out.publish(name, file)
            stored[name] = {
                "rows": rows,
                "bytes": published.bytes,
                "sha256": published.sha256,
            }
        text: dict[str, Any] = {
            "state": "complete",
            "run": run.run_id,
            "job": run.spec["job"],
            "created": run.spec["created"],
            "fingerprint": run.spec["fingerprint"],
            "license": license,
            **final["labels"],
            "queries": final["queries"],
            "rejects": final["rejects"],
            "rows": dict(sorted(facts.rows.items())),
            "label_distribution": dict(sorted(facts.labels.items())),
            "origins": dict(sorted(facts.origins.items())),
            "rows_without_teacher_score": facts.without_score,
            "formats": {name: FORMATS[name].reader for name in formats},
            "tuple_negatives": negatives,
            "files": stored,
            "samples": [row for _, _, row in sorted(facts.samples, key=lambda each: each[:2])],
        }
        _publish(out, Path(folder), README, card.markdown(text))
        _publish(out, Path(folder), CARD, json.dumps(text, ensure_ascii=False, indent=1) + "\n")
    return text


def _publish(out: Root, folder: Path, name: str, content: str) -> None:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    out.publish(name, file)


def _write(
    run: Run, folder: Path, formats: Sequence[LabelFormat], negatives: int, facts: _Facts
) -> dict[Path, int]:
    """Write every file under ``folder``; how many rows each holds."""
    source = run.finished()["labels"]["source"]["truth"]
    written: dict[Path, int] = {}
    with ExitStack() as stack:
        writers: dict[tuple[str, str], _Writer] = {}
        names: dict[tuple[str, str], Path] = {}
        for split in SPLITS:
            for name in (ROWS, *formats):
                suffix = "parquet" if name == ROWS else FORMATS[cast("LabelFormat", name)].suffix
                file = folder / name / f"{split}.{suffix}"
                file.parent.mkdir(exist_ok=True)
                names[name, split], written[file] = file, 0
                writers[name, split] = _open(file, name, negatives)
                stack.callback(writers[name, split].close)
        for table in labelled_batches(run.results_paths()):
            rows = unfolded(table, source).to_pylist()
            _count(rows, facts)
            for split in SPLITS:
                some = [row for row in rows if row["split"] == split]
                writers[ROWS, split].write(some)
                written[names[ROWS, split]] += len(some)
            for split, query in _queries(table):
                for format in formats:
                    shaped = list(FORMATS[format].rows(query, negatives))
                    writers[format, split].write(shaped)
                    written[names[format, split]] += len(shaped)
    return written


def _queries(table: pa.Table) -> Iterable[tuple[str, Query]]:
    for row in table.select(["query_id", "query", "split", "documents"]).to_pylist():
        yield row["split"], Query(row["query_id"], row["query"], row["documents"])


def _count(rows: Sequence[Row], facts: _Facts) -> None:
    for row in rows:
        facts.rows[f"{row['split']} {row['role']}"] += 1
        label = "not judged" if row["label"] is None else f"{row['label']:g}"
        facts.labels[f"{row['role']}: {label}"] += 1
        facts.origins[f"{row['role']}: {row['origin']}"] += 1
        facts.without_score += row["teacher_score"] is None
    drawn = [(order_key(0, row["query_id"])(row["doc_id"]), row["doc_id"], row) for row in rows]
    facts.samples = heapq.nsmallest(
        _SAMPLES, [*facts.samples, *drawn], key=lambda each: (each[0], each[1])
    )


def check_target(out: Root) -> list[str]:
    """What an earlier dataset left in a folder that one may be written to.

    Raises:
        ConfigError: there is something that is no part of such a dataset.
    """
    there = sorted(out.sizes(""))
    raw = out.read(CARD)
    ours = {*_listed(raw), CARD, README} if raw is not None else set()
    if strange := [key for key in there if key not in ours]:
        raise ConfigError(
            f"--out {out.uri} holds {strange[0]!r}, which is no part of a label dataset that this "
            "command wrote: nothing was removed. Name an empty folder"
        )
    return there


def _clear(out: Root) -> None:
    """Remove an earlier dataset; card.json last, so that what is half removed is still known."""
    there = check_target(out)
    out.delete([key for key in there if key != CARD])
    out.delete([CARD])


def _listed(raw: bytes) -> Mapping[str, Any]:
    try:
        files = json.loads(raw)["files"]
    except (ValueError, KeyError, TypeError):
        return {}
    return files if isinstance(files, dict) else {}


def _open(file: Path, name: str, negatives: int) -> _Writer:
    if name == ROWS:
        return _Parquet(file, LABELS)
    columns = FORMATS[cast("LabelFormat", name)].columns
    return _Lines(file) if columns is None else _Parquet(file, columns(negatives))


class _Parquet:
    """Row groups of so many rows, whatever the pieces they come in."""

    _ROWS = 20_000

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[Row] = []
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        """Append."""
        self._rows += rows
        while len(self._rows) >= self._ROWS:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        group, self._rows = self._rows[: self._ROWS], self._rows[self._ROWS :]
        self._writer.write_table(pa.Table.from_pylist(group, schema=self._schema))


class _Lines:
    """One JSON object a line."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Row]) -> None:
        """Append."""
        for row in rows:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
