"""A finished label run as a dataset: canonical rows, the formats, and the card, in one folder.

    <out>/card.json, README.md               what is in it; card.json is whole when all of it is
    <out>/rows/<split>.parquet               the canonical rows, `rows.LABELS`
    <out>/<format>/<split>.jsonl             the same as trainers read them

Everything follows from the run alone: writing again gives the same files. The rows stream through,
so memory does not grow with them.
"""

import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.config import LabelFormat
from rerank_batch.errors import ConfigError, RunConflict
from rerank_batch.labels import card
from rerank_batch.labels.formats import FORMATS, FormattedQuery, Row
from rerank_batch.labels.mining.draws import order_key
from rerank_batch.labels.rows import LABELS, SPLITS, labelled_batches, unfolded
from rerank_batch.runs import Run
from rerank_batch.schema import JsonObject
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


def write_dataset(
    run: Run, out: Root, formats: Sequence[LabelFormat], negatives: int, license: str | None
) -> JsonObject:
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
        text: JsonObject = {
            "state": "complete",
            "run": run.run_id,
            "job": run.spec.job,
            "created": run.spec.created,
            "fingerprint": run.spec.fingerprint,
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
    with ExitStack() as stack:
        rows = {
            split: stack.enter_context(closing(_Parquet(_file(folder, ROWS, split, "parquet"))))
            for split in SPLITS
        }
        shaped = {
            (name, split): stack.enter_context(closing(_Lines(_file(folder, name, split, "jsonl"))))
            for name in formats
            for split in SPLITS
        }
        for table in labelled_batches(run.results_paths()):
            labels = unfolded(table, source)
            _count(labels, facts)
            for split in SPLITS:
                rows[split].write(labels.filter(pc.equal(labels.column("split"), split)))
            for split, query in _queries(table) if formats else ():
                for name in formats:
                    shaped[name, split].write(FORMATS[name].rows(query, negatives))
    writers: list[_Parquet | _Lines] = [*rows.values(), *shaped.values()]
    return {writer.file: writer.rows for writer in writers}


def _file(folder: Path, name: str, split: str, suffix: str) -> Path:
    file = folder / name / f"{split}.{suffix}"
    file.parent.mkdir(exist_ok=True)
    return file


def _queries(table: pa.Table) -> Iterable[tuple[str, FormattedQuery]]:
    for row in table.select(["query_id", "query", "split", "documents"]).to_pylist():
        yield row["split"], FormattedQuery(row["query_id"], row["query"], row["documents"])


def _count(labels: pa.Table, facts: _Facts) -> None:
    keys = ["split", "role", "label", "origin"]
    for row in labels.group_by(keys).aggregate([([], "count_all")]).to_pylist():
        count, role = row["count_all"], row["role"]
        grade = "not judged" if row["label"] is None else f"{row['label']:g}"
        facts.rows[f"{row['split']} {role}"] += count
        facts.labels[f"{role}: {grade}"] += count
        facts.origins[f"{role}: {row['origin']}"] += count
    facts.without_score += labels.column("teacher_score").null_count
    ids = zip(*(labels.column(name).to_pylist() for name in ("query_id", "doc_id")), strict=True)
    drawn = [
        (order_key(0, query_id)(doc_id), doc_id, number)
        for number, (query_id, doc_id) in enumerate(ids)
    ]
    few = [
        (key, doc_id, labels.slice(number, 1).to_pylist()[0])
        for key, doc_id, number in heapq.nsmallest(_SAMPLES, drawn)
    ]
    facts.samples = sorted([*facts.samples, *few], key=lambda each: each[:2])[:_SAMPLES]


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


class _Parquet:
    """A file of row groups of so many rows, whatever the pieces they come in."""

    _ROWS = 20_000

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, 0
        self._waiting = LABELS.empty_table()
        self._writer = pq.ParquetWriter(file, LABELS, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self.rows += table.num_rows
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= self._ROWS:
            self._write_group()

    def close(self) -> None:
        """Finish the file."""
        if self._waiting.num_rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        group = self._waiting.slice(0, self._ROWS)
        self._writer.write_table(group, row_group_size=self._ROWS)
        self._waiting = self._waiting.slice(self._ROWS)


class _Lines:
    """A file of one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, 0
        self._stream = file.open("w", encoding="utf-8")

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""
        for row in rows:
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self.rows += 1

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()
