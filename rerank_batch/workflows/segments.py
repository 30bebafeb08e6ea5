"""How the parts of the judged queries fare: by length, by frequency, by columns of the log."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from rerank_batch.config import Config
from rerank_batch.evaluation.segments.columns import check_segments, read_segments
from rerank_batch.evaluation.segments.study import (
    Floats,
    Measured,
    Segment,
    SegmentStudy,
    study_segments,
    weight_text,
)
from rerank_batch.remarks import Remark
from rerank_batch.runs import Run
from rerank_batch.storage import open_file

_NAME_COLUMNS, _SYSTEM_COLUMNS, _INTERVAL_COLUMNS = 18, 9, 13  # the table fits 100


class Compared(Measured, Protocol):
    """A comparison whose queries have names: those of the run's result rows, or rejected ids."""

    @property
    def query_ids(self) -> Sequence[str]:
        """[n], the smallest id of each query."""


def check(config: Config) -> tuple[Remark, ...]:
    """See that the log has the columns of ``evaluation.segments``, before anything is run; what
    looks wrong about them.

    Raises:
        ConfigError: it has none, or others.
    """
    return check_segments(config.queries, config.evaluation.segments)


def segments_of(run: Run, config: Config, compared: Compared) -> SegmentStudy:
    """The segments of a finished run's judged queries; see `check` for what is raised."""
    asked = config.evaluation.segments
    weights, ids = _traffic(run.results_paths(), compared.query_ids if asked else ())
    columns = read_segments(config.queries, asked, ids)
    return study_segments(compared, weights, columns)


def segment_summary(study: SegmentStudy) -> dict[str, Any]:
    """The study as JSON values."""
    return {
        "headline": study.headline,
        "systems": list(study.systems),
        "best": study.best,
        "fewest_for_interval": study.fewest,
        "overall": _as_json(study.overall),
        "groups": [
            {
                "name": group.name,
                "definition": group.definition,
                "segments": [_as_json(segment) for segment in group.segments],
            }
            for group in study.groups
        ],
    }


def segment_parts(segments: Mapping[str, Any]) -> list[Table | str]:
    """One table of the segments in the headline measure, the baseline beside the best system."""
    name, baseline, best = segments["headline"], segments["systems"][0], segments["best"]
    table = Table(title=f"{name} by segment", title_justify="left", pad_edge=False)
    table.add_column("segment", max_width=_NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
    for column in ("queries", "weight"):
        table.add_column(column, justify="right")
    for system in (baseline, *([best] if best else [])):
        table.add_column(system, justify="right", max_width=_SYSTEM_COLUMNS, overflow="fold")
    if best:
        table.add_column("gain", justify="right")
        table.add_column("95 % interval", justify="right", min_width=_INTERVAL_COLUMNS)
        table.add_column("weighted\ngain", justify="right")
    table.add_row(*_cells(segments["overall"], name, baseline, best))
    lines = []
    for group in segments["groups"]:
        found = group["segments"]
        if len(found) > 1:
            table.add_section()
            table.add_row(_printable(f"by {group['name']}"))
            for segment in found:
                table.add_row(*_cells(segment, name, baseline, best, indent="  "))
        else:
            why = f"all are in {found[0]['name']}" if found else group["definition"]
            lines.append(_printable(f"by {group['name']}: {why}"))
    if best:
        fewest = segments["fewest_for_interval"]
        lines.append(
            "Intervals are each of one segment alone and decide nothing; there is none below "
            f"{fewest} queries. weighted: by how often queries are asked."
        )
    return [table, *lines]


def _cells(
    segment: Mapping[str, Any], measure: str, baseline: str, best: str | None, indent: str = ""
) -> list[str]:
    means, weighted = segment["means"], segment["weighted_means"]
    cells = [
        indent + _printable(segment["name"]),
        f"{segment['queries']:,}",
        weight_text(segment["weight"]),
        f"{means[baseline][measure]:.4f}",
    ]
    if best is None:
        return cells
    gain = segment["gains"][best]
    low_high = gain["interval"]
    return [
        *cells,
        f"{means[best][measure]:.4f}",
        f"{gain['difference']:+.4f}",
        "–" if low_high is None else "{:+.3f} {:+.3f}".format(*low_high),
        f"{weighted[best][measure] - weighted[baseline][measure]:+.4f}",
    ]


def _as_json(segment: Segment) -> dict[str, Any]:
    gains = {system: vars(gain) for system, gain in segment.gains.items()}
    return {**vars(segment), "gains": gains}


def _printable(text: str) -> str:
    """A value of somebody's log on one line, without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _traffic(paths: Sequence[str], query_ids: Sequence[str]) -> tuple[Floats, list[list[str]]]:
    """Weights of all queries of the result files, and every log id of those that are named.

    A named query that is not among the results was rejected and gets no ids.
    """
    named = pa.array(query_ids, pa.string())
    weights: list[Floats] = []
    ids: dict[str, list[str]] = {}
    columns = ["query_id", "query_ids", "weight"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(columns=columns):
            weights.append(batch.column("weight").to_numpy())
            found = batch.filter(pc.is_in(batch.column("query_id"), value_set=named))
            names, listed = (found.column(name).to_pylist() for name in columns[:2])
            ids |= zip(names, listed, strict=True)
    everything = np.concatenate(weights) if weights else np.empty(0)
    return everything, [ids.get(name, []) for name in query_ids]
