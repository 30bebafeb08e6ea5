"""The report on segments: every number of a drawing in a table, and strangers' text inert."""

from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest

from rerank_batch.evaluation.report import page as report_module
from rerank_batch.evaluation.segments.chart import LONGEST_LABEL, segment_charts
from rerank_batch.evaluation.segments.groupings import ColumnValues
from rerank_batch.evaluation.segments.study import SegmentStudy, study_segments
from tests.evaluation.report.test_page import HOSTILE, Tags
from tests.evaluation.segments.test_study import BASE, NEW, Systems

TEMPLATE = report_module._TEMPLATE.environment.get_template("segments/section.html.j2")


def study(channel: str = "channel", value: str = "web", **names: tuple[str, ...]) -> SegmentStudy:
    texts = ["one", "two words", "two more", *["a query of five words"] * 10, ""]
    queries = len(texts)
    before = np.linspace(0, 0.5, queries)
    after = before + np.where(np.arange(queries) % 3, 0.25, -0.1).clip(-before)
    systems = Systems(texts, 1.0 + np.arange(queries), before, after, **names)
    column = ColumnValues(
        (value, None), np.arange(3), np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0])
    )
    return study_segments(systems, systems.weights[:-1], {channel: column})


def section(of: SegmentStudy) -> str:
    return TEMPLATE.render(
        report=SimpleNamespace(segments=of, judged=of.overall.queries),
        segment_charts=segment_charts(of),
    )


def test_every_segment_has_its_bars_and_its_row() -> None:
    page = section(study())
    parsed = Tags(page)
    assert parsed.open == []
    assert len(parsed.names("table")) == len(parsed.names("caption")) == 6
    for group in study().groups:
        assert f"nDCG@10 by {group.name}" in page
        for segment in group.segments:
            assert f"{escape(segment.name)} <tspan" in page
            for system in (BASE, NEW):
                number = f"{segment.means[system]['nDCG@10']:.3f}"
                assert f">{number}</text>" in page and f">{number}</td>" in page
                assert f">{segment.weighted_means[system]['nDCG@10']:.3f}</td>" in page
    assert page.count('<rect class="before" y') == sum(len(g.segments) for g in study().groups)
    ids = [str(a["id"]) for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labels = " ".join(str(a["aria-labelledby"]) for _, a in parsed.tags if "aria-labelledby" in a)
    assert set(labels.split()) <= set(ids)
    assert "fewer than 10 judged queries" in page
    assert "it decides nothing" in page


def test_a_grouping_without_segments_says_why_and_draws_nothing() -> None:
    alike = Systems(["a", "b"], np.ones(2), np.ones(2), np.ones(2))
    page = section(study_segments(alike, np.ones(2)))
    assert "No head and no tail: the 2 queries of this run are asked equally often." in page
    assert 'All judged queries are in one segment: <span dir="auto">1 word</span>.' in page
    assert "<figure>" not in page


def test_one_system_alone_is_drawn_without_gains() -> None:
    page = section(study(systems=(BASE,)))
    assert Tags(page).open == []
    assert 'class="after"' not in page
    assert "interval</th><th" not in page.split("<details>")[0]


def test_hostile_names_stay_text() -> None:
    page = section(study(HOSTILE, HOSTILE, measures=(HOSTILE, "NumRet")))
    assert "<script" not in page
    assert page.count(escape(HOSTILE)) > 20
    assert len(section(study("channel", "x" * 1_000_000))) < 100_000


def test_bars_share_one_scale_that_counts_do_not_leave() -> None:
    found = study(measures=("NumRet", "nDCG@10"))
    swapped = replace(found, measures=("nDCG@10", "NumRet"))
    counts, shares = segment_charts(swapped), segment_charts(found)
    assert {chart.scale for chart in shares} == {1.0}
    (scale,) = {chart.scale for chart in counts}
    widest = max(bar.width for chart in counts for row in chart.rows for bar in row.bars)
    assert scale > 1.0
    assert widest == pytest.approx(100)
    for chart in counts:
        for row in chart.rows:
            for bar in row.bars:
                assert bar.width == pytest.approx(100 * bar.value / scale)
                assert row.y + bar.y + bar.height <= chart.height


def test_a_long_name_is_cut_above_the_bars() -> None:
    chart = segment_charts(study(value="long " * 40))[-1]
    assert [len(row.label) <= LONGEST_LABEL for row in chart.rows] == [True] * len(chart.rows)
    assert chart.rows[0].label.endswith("…")
    assert chart.rows[0].segment.name == "long " * 40
