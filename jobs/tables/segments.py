"""The segments of an evaluation, in a table."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.segments.groupings import weight_text

_NAME_COLUMNS, _SYSTEM_COLUMNS, _INTERVAL_COLUMNS = 18, 9, 13  # the table fits 100


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
        segments_of = group["segments"]
        if len(segments_of) > 1:
            table.add_section()
            table.add_row(_printable(f"by {group['name']}"))
            for segment in segments_of:
                table.add_row(*_cells(segment, name, baseline, best, indent="  "))
        else:
            why = f"all are in {segments_of[0]['name']}" if segments_of else group["definition"]
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


def _printable(text: str) -> str:
    """A value of somebody's log on one line, without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
