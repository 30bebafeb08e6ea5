"""The segments of an evaluation, in a table."""

from rich.table import Table

from rerank_batch.evaluation.segments.study import QuerySegment, SegmentStudy

_NAME_COLUMNS, _SYSTEM_COLUMNS, _INTERVAL_COLUMNS = 18, 9, 13  # the table fits 100


def segment_parts(study: SegmentStudy) -> list[Table | str]:
    """One table of the segments in the headline measure, the baseline beside the best system."""
    name, baseline, best = study.headline, study.baseline, study.best
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
    table.add_row(*_cells(study.overall, name, baseline, best))
    lines = []
    for group in study.groups:
        segments = group.segments
        if len(segments) > 1:
            table.add_section()
            table.add_row(_printable(f"by {group.name}"))
            for segment in segments:
                table.add_row(*_cells(segment, name, baseline, best, indent="  "))
        else:
            why = f"all are in {segments[0].name}" if segments else group.definition
            lines.append(_printable(f"by {group.name}: {why}"))
    if best:
        fewest = study.fewest
        lines.append(
            "Intervals are each of one segment alone and decide nothing; there is none below "
            f"{fewest} queries. weighted: by how often queries are asked."
        )
    return [table, *lines]


def _cells(
    segment: QuerySegment, measure: str, baseline: str, best: str | None, indent: str = ""
) -> list[str]:
    means, weighted = segment.means, segment.weighted_means
    cells = [
        indent + _printable(segment.name),
        f"{segment.queries:,}",
        segment.weight_text,
        f"{means[baseline][measure]:.4f}",
    ]
    if best is None:
        return cells
    gain = segment.gains[best]
    low_high = gain.interval
    return [
        *cells,
        f"{means[best][measure]:.4f}",
        f"{gain.difference:+.4f}",
        "–" if low_high is None else "{:+.3f} {:+.3f}".format(*low_high),
        f"{weighted[best][measure] - weighted[baseline][measure]:+.4f}",
    ]


def _printable(text: str) -> str:
    """A value of somebody's log on one line, without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
