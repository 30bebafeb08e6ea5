"""Segments of a finished run: what metrics.json and the terminal say of them."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jobs.tables.segments import segment_parts
from rerank_batch.config import Config, parse_config
from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.segments.columns import check_segments
from rerank_batch.evaluation.segments.study import QuerySegment, SegmentStudy
from rerank_batch.evaluation.segments.traffic import segments_of
from tests.evaluation.segments.test_study import BASE, NEW, Systems
from tests.support.helpers import finished_run, result_row, write_parquet


@dataclass(frozen=True)
class Compared(Systems):
    query_ids: Sequence[str] = ()


def config(log: Path, **evaluation: Any) -> Config:
    return parse_config(
        {
            "corpus": {"path": "corpus.parquet"},
            "queries": {"path": str(log)},
            "index": {"path": "index", "encoder": "sentence-transformers:x"},
            "evaluation": evaluation,
        }
    )


def study(folder: Path, segments: Sequence[str] = ()) -> SegmentStudy:
    """Of four queries, of which b was not judged and gone was rejected."""
    rows = [
        {**result_row(0, [], ["a", "a2"]), "weight": 3.0},
        {**result_row(1, [], ["b"]), "weight": 5.0},
        {**result_row(2, [], ["c"]), "weight": 2.0},
    ]
    run = finished_run(folder / "root", [rows[:2], rows[2:]])
    log = [("a", "web"), ("a", "app"), ("a2", "web"), ("b", "tv")]
    log += [("c", "[red]\x1b[31m")] * 2
    write_parquet(
        folder / "log.parquet",
        [{"query_id": i, "query": i[0], "channel": channel} for i, channel in log],
    )
    compared = Compared(
        ["query a", "c", ""],
        np.array([3.0, 2.0, 0.0]),
        np.array([0.5, 0.25, 0.0]),
        np.array([1.0, 0.25, 0.0]),
        query_ids=("a", "c", "gone"),
    )
    settings = config(folder / "log.parquet", segments=segments)
    return segments_of(run.results_paths(), settings, compared)


def printed(study: SegmentStudy) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100)
    for part in segment_parts(study):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    return out.getvalue()


def test_the_summary_has_every_grouping_with_its_segments(tmp_path: Path) -> None:
    found = json.loads(json.dumps(study(tmp_path, ["channel"]).to_json(), allow_nan=False))
    assert (found["headline"], found["systems"], found["best"]) == ("nDCG@10", [BASE, NEW], NEW)
    assert found["overall"]["weighted_means"][NEW]["nDCG@10"] == pytest.approx(3.5 / 5)
    weights = {
        group["name"]: {segment["name"]: segment["weight"] for segment in group["segments"]}
        for group in found["groups"]
    }
    assert weights == {
        "length": {"1 word": 2.0, "2 words": 3.0, "(rejected)": 0.0},
        # b, which nobody judged, is the head: the traffic is that of the whole run.
        "frequency": {"torso": 3.0, "tail": 2.0, "(rejected)": 0.0},
        "channel": {"[red]\x1b[31m": 2.0, "app": 1.0, "web": 2.0, "(rejected)": 0.0},
    }
    web = found["groups"][2]["segments"][2]
    assert web["gains"] == {NEW: {"difference": 0.5, "interval": None}}
    assert "weight 5 or more" in found["groups"][1]["definition"]


def test_the_terminal_shows_one_table_and_obeys_no_value(tmp_path: Path) -> None:
    text = printed(study(tmp_path, ["channel"]))
    assert text.count("nDCG@10 by segment") == 1
    assert "[red]�[31m" in text
    assert "\x1b" not in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["web", "1", "2", "0.5000", "1.0000", "+0.5000", "–", "+0.5000"] in rows
    assert ["by channel", *[""] * 7] in rows
    assert "Intervals are each of one segment alone and decide nothing" in text


def test_the_table_fits_100_columns_whatever_the_names(tmp_path: Path) -> None:
    """A row wider than the terminal would wrap."""
    found = study(tmp_path, ["channel"])
    system = "a reranker with a name of 40 characters!"

    def renamed(segment: QuerySegment) -> QuerySegment:
        means, weighted = (
            {BASE: values[BASE], system: values[NEW]}
            for values in (segment.means, segment.weighted_means)
        )
        gain = segment.gains[NEW]
        if segment.name == "web":
            gain = replace(gain, interval=(-0.123, 0.456))
        return replace(
            segment,
            name=segment.name.replace("web", "web" * 30),
            means=means,
            weighted_means=weighted,
            gains={system: gain},
        )

    groups = tuple(
        replace(group, segments=tuple(map(renamed, group.segments))) for group in found.groups
    )
    found = replace(
        found, systems=(BASE, system), best=system, overall=renamed(found.overall), groups=groups
    )
    lines = [line for line in printed(found).splitlines() if line[:1] in ("│", "┃")]
    assert all(len(line) <= 100 for line in lines)
    assert sum(line.count(" -0.123 +0.456 ") for line in lines) == 1


def test_a_grouping_of_one_segment_or_none_is_a_line(tmp_path: Path) -> None:
    found = study(tmp_path)
    groups = tuple(
        replace(group, segments=group.segments[:1] if group.name == "length" else ())
        for group in found.groups
    )
    lines = printed(replace(found, groups=groups)).splitlines()
    assert "by length: all are in 1 word" in lines
    assert any(line.startswith("by frequency: ") for line in lines)


def test_columns_are_checked_before_anything_runs(tmp_path: Path) -> None:
    log = write_parquet(tmp_path / "log.parquet", [{"query_id": "a", "query": "a"}])
    check_segments(config(log).queries, [])
    with pytest.raises(ConfigError, match="no column 'channel'; it has query_id, query"):
        check_segments(config(log).queries, ["channel"])
