"""The report page: true words, safe with strangers' text, small, readable on a phone."""

import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.depth.study import DepthRow, DepthStudy
from rerank_batch.evaluation.failures.study import (
    Case,
    FailureGroup,
    Failures,
    ListedDocument,
    Moved,
)
from rerank_batch.evaluation.report.headline import MeasureRow
from rerank_batch.evaluation.report.page import QueryGain, Report, forest, render, verdict
from rerank_batch.evaluation.significance import PairedTest, paired_tests
from rerank_batch.remarks import NotKnown

HOSTILE = "<script>alert(1)</script>"

TEST = PairedTest(
    queries=200,
    comparisons=3,
    difference=0.059,
    interval=(0.035, 0.083),
    effect_size=0.34,
    wins=96,
    ties=71,
    losses=33,
    t_test_p_value=0.00001,
    p_value=0.00002,
    corrected_p_value=0.00006,
    detectable=0.041,
)
NDCG = MeasureRow("nDCG@10", 0.552, 0.611, TEST)
MRR = MeasureRow(
    "RR@10",
    0.701,
    0.672,
    replace(
        TEST,
        difference=-0.029,
        interval=(-0.061, -0.002),
        effect_size=-0.12,
        wins=28,
        ties=99,
        losses=73,
        corrected_p_value=0.0497,
    ),
)
COPIES = paired_tests({"R@50": [0.0] * 200})["R@50"]
RECALL = MeasureRow("R@50", 0.871, 0.871, replace(COPIES, comparisons=3))


def gains(count: int) -> tuple[QueryGain, ...]:
    """Gains from about +0.5 down to -0.5."""
    return tuple(
        QueryGain(f"q{i:05d}", f"how to number {i}", 0.5, 1 - i / count) for i in range(count)
    )


def study(name: str = "nDCG@10") -> DepthStudy:
    values = {0: 0.552, 5: 0.5871, 10: 0.6042, 20: 0.6101, 50: 0.611}
    rows = [
        DepthRow(depth, {name: value, "RR@10": 0.7}, recall=depth / 60, pairs=200 * depth)
        for depth, value in values.items()
    ]
    return DepthStudy(name, tuple(rows), pa.table({}))


def case(number: int, text: str = "how to fail", doc_id: str = "doc") -> Case:
    return Case(
        query_id=f"{text}-{number}",
        text=text,
        before=0.75,
        after=0.25,
        retrieval=(ListedDocument(f"{doc_id}-1", 2, 14), ListedDocument(f"{doc_id}-2", None, 1)),
        reranked=(ListedDocument(f"{doc_id}-2", None, 2), ListedDocument(f"{doc_id}-3", 0, 31)),
        relevant=13,
        never_found=tuple(f"{doc_id}-lost-{n}" for n in range(12)),
        pushed_down=(Moved(f"{doc_id}-1", 2, 1, 14),),
    )


def failures(count: int = 3, *strange: str) -> Failures:
    cases = [case(number, *strange) for number in range(count)]
    return Failures(
        headline="nDCG@10",
        helped=tuple(cases),
        hurt=tuple(cases),
        never_found=FailureGroup(1234, 5678, cases),
        found_nothing=321,
        pushed_down=FailureGroup(count, count, cases),
    )


REPORT = Report(
    title="Nightly",
    run_id="nightly-0007",
    headline="nDCG@10",
    measures=(NDCG, MRR, RECALL),
    gains=gains(200),
    queries=1234,
    judged=200,
    pairs=61_700,
    rejects={"empty": 12, "duplicate_id": 1207},
    seconds={"retrieve": 48.77, "score": 1834.021},
    facts={"fingerprint": "9c1f4e0b", "reranker": "cross-encoder:models/small"},
    depth=study(),
    failures=failures(),
)
EMPTY = replace(REPORT, measures=(), gains=(), judged=0, depth=None, failures=None)


def several(
    name: str = "late 50", described: str = "50 of Flat, then late-interaction:x"
) -> Report:
    """Two systems beside retrieval: one better, one a copy."""
    values = {"nDCG@10": 0.552, "RR@10": 0.701, "R@50": 0.871}
    rows = [replace(row, system=name) for row in (NDCG, MRR, RECALL)]
    rows += [MeasureRow(m, v, v, replace(COPIES, comparisons=2), "copy") for m, v in values.items()]
    return replace(
        REPORT,
        systems=("retrieval", name, "copy"),
        best=name,
        described={"retrieval": "50 of Flat", name: described, "copy": "50 of Flat"},
        means={
            "retrieval": values,
            name: {"nDCG@10": 0.611, "RR@10": 0.672, "R@50": 0.871},
            "copy": values,
        },
        missing={name: 7},
        measures=tuple(rows),
    )


def judged_as(retrieval: float = 0.552, reranked: float = 0.611, **test: object) -> Report:
    tested = replace(TEST, difference=reranked - retrieval, **test)  # type: ignore[arg-type]
    return replace(REPORT, measures=(MeasureRow("nDCG@10", retrieval, reranked, tested), MRR))


def one_query(query_id: str = "q1", query: str = "one", measure: str = "nDCG@10") -> Report:
    row = MeasureRow(measure, 0.5, 0.63, paired_tests({measure: [0.13]})[measure])
    return replace(
        REPORT,
        headline=measure,
        measures=(row,),
        gains=(QueryGain(query_id, query, 0.5, 0.63),),
        judged=1,
    )


class Tags(HTMLParser):
    """Every tag with its attributes, and whether the open ones are closed in order."""

    VOID = ("meta", "line", "rect", "path", "circle")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def names(self, *wanted: str) -> list[str]:
        return [name for name, _ in self.tags if name in wanted]


# --- the words -----------------------------------------------------------------------------------


def test_better_says_by_how_much_and_how_sure() -> None:
    result = verdict(REPORT)
    assert result.outcome == "better"
    assert result.text == (
        "Reranking raised nDCG@10 from 0.552 to 0.611 on 200 judged queries "
        "(+0.059, 95 % interval +0.035 to +0.083; 96 better, 71 the same, 33 worse; "
        "randomisation test p < 0.001, corrected for 3 comparisons)."
    )


def test_worse_says_so() -> None:
    result = verdict(judged_as(0.611, 0.552, corrected_p_value=0.004))
    assert result.outcome == "worse"
    assert "lowered nDCG@10 from 0.611 to 0.552" in result.text
    assert "(−0.059," in result.text
    assert "p = 0.004" in result.text
    assert result.text.endswith("retrieval alone ranks better.")


@pytest.mark.parametrize("reranked", [0.611, 0.501])
@pytest.mark.parametrize(("p_value", "words"), [(0.05, "p = 0.050"), (0.31, "p = 0.310")])
def test_undecided_says_so_and_what_these_queries_can_tell(
    reranked: float, p_value: float, words: str
) -> None:
    """However small the p value is before its correction."""
    result = verdict(judged_as(reranked=reranked, corrected_p_value=p_value))
    assert result.outcome == "undecided"
    assert words in result.text
    assert result.text.endswith(
        "The difference can be chance: these 200 queries can tell differences of 0.041 or more, "
        "four times in five."
    )


def test_two_copies_of_a_system_are_undecided() -> None:
    result = verdict(replace(REPORT, headline="R@50"))
    assert result.outcome == "undecided"
    assert result.text == (
        "Reranking left R@50 at 0.871 on 200 judged queries (0.000; 0 better, 200 the same, "
        "0 worse; randomisation test p = 1.000, corrected for 3 comparisons). "
        "These 200 queries are unchanged, so there is nothing to decide."
    )


def test_a_sure_difference_that_three_decimals_do_not_show() -> None:
    result = verdict(judged_as(0.5521, 0.5524))
    assert result.outcome == "better"
    assert "raised nDCG@10 by less than 0.001, to 0.552, on 200" in result.text


def test_rounding_keeps_p_on_its_side_of_the_line() -> None:
    text = verdict(judged_as(corrected_p_value=0.0497, comparisons=1)).text
    assert "randomisation test p < 0.05)" in text


def test_one_query_is_singular_and_undecided() -> None:
    result = verdict(one_query())
    assert result.outcome == "undecided"
    assert "on 1 judged query (" in result.text
    assert "interval" not in result.text


def test_headline_must_be_one_of_the_measures() -> None:
    with pytest.raises(ConfigError, match=r"'P@5' is none of the measures: nDCG@10, RR@10, R@50"):
        render(replace(REPORT, headline="P@5"))


# --- the page ------------------------------------------------------------------------------------


def cells(page: str) -> list[str]:
    return [cell.strip() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)]


def test_every_number_is_in_a_table() -> None:
    table = "|".join(cells(render(REPORT)))
    for row in (
        "nDCG@10|0.552|0.611|+0.059|+0.035 to +0.083|+0.340|96|71|33|&lt; 0.001|better|0.041",
        "RR@10|0.701|0.672|−0.029|−0.061 to −0.002|−0.120|28|99|73|&lt; 0.05|worse|0.041",
        "R@50|0.871|0.871|0.000|–|–|0|200|0|1.000|undecided|–",
        "duplicate_id|1,207|empty|12",
        "retrieve|48.77|score|1,834.02",
        "q00000|how to number 0|0.500|1.000|+0.500",
        "q00199|how to number 199|0.500|0.005|−0.495",
    ):
        assert row in table


def test_the_page_says_what_the_interval_is_and_which_other_measures_are_undecided() -> None:
    page = " ".join(render(REPORT).split())
    assert "corrected by Holm over the comparisons of this table" in page
    assert "bootstrap of one difference alone and not corrected" in page
    assert "R@50 is undecided. These 200 queries are unchanged" in page


def test_totals_and_facts_are_there() -> None:
    page = render(REPORT)
    for text in ("1,234", "61,700", "1,219", "nightly-0007", "9c1f4e0b", "models/small"):
        assert text in page


def test_extremes_are_twenty_each_and_the_rest_is_counted() -> None:
    page = render(REPORT)
    assert len(re.findall(r"how to number \d+", page)) == 40
    assert "The 20 largest; 80 more not listed" in page  # 100 helped, one unchanged, 99 hurt
    assert "The 20 largest; 79 more not listed" in page


def test_bars_print_their_values() -> None:
    chart = render(REPORT).split('class="chart"')[1].split("</svg>")[0]
    for value in ("0.552", "0.611", "0.701", "0.672", "0.871"):
        assert f">{value}</text>" in chart


def test_counts_do_not_break_the_scale_of_shares() -> None:
    count = MeasureRow("NumRet", 10.0, 312.0, TEST)
    page = render(replace(REPORT, measures=(NDCG, count)))
    assert 'width="55.20%"' in page
    assert "full width: 312.0" in page


def test_depths_are_drawn_and_every_number_of_the_drawing_is_in_the_table() -> None:
    page = render(REPORT)
    table = "|".join(cells(page))
    for row in (
        "Candidates|nDCG@10|Recall ceiling|Pairs|Cost|RR@10",
        "0|0.5520|–|0|0 %|0.7000",
        "5|0.5871|0.0833|1,000|10 %|0.7000",
        "20 (knee)|0.6101|0.3333|4,000|40 %|0.7000",
        "50|0.6110|0.8333|10,000|100 %|0.7000",
    ):
        assert row in table
    assert "Beyond 20 candidates nDCG@10 rises by less than 0.002 and cost by 150 %." in page
    drawing = page.split('aria-labelledby="depth-title depth-desc"')[1].split("</figure>")[0]
    assert drawing.count("<circle") == 5
    assert ">0.587</text>" in drawing and ">knee</text>" in drawing
    assert 'd="M0.0 160.0L250.0 64.8L500.0 18.4L750.0 2.4L1000.0 0.0"' in drawing
    assert 'x1="75.00%"' in drawing


def test_a_level_curve_is_drawn_as_well() -> None:
    rows = tuple(DepthRow(depth, {"nDCG@10": 0.5}, 0.0, 0) for depth in (0, 3))
    page = render(replace(REPORT, depth=DepthStudy("nDCG@10", rows, pa.table({}))))
    assert 'd="M0.0 160.0L1000.0 160.0"' in page
    assert "retrieval alone would do" in page


def test_where_depths_are_not_known_it_says_why() -> None:
    page = render(replace(REPORT, depth=NotKnown("it reranked by a cascade of 2 stages")))
    assert "Not known from this run: it reranked by a cascade of 2 stages." in page
    assert "depth-title" not in page
    assert Tags(page).open == []


def test_several_systems_are_compared_with_the_first() -> None:
    report = several()
    page = render(report)
    assert verdict(report).text.startswith(
        "The best of 2 systems beside retrieval, late 50, raised nDCG@10 from 0.552 to 0.611"
    )
    assert "no list for 7 queries, which count as 0" in page
    rows = [
        [row.measure, f"{row.after:.3f}", f"{abs(row.test.difference):.3f}"]
        for row in report.measures
    ]
    table = "|".join(cells(page))
    for measure, after, difference in rows:
        assert re.search(rf"\|{measure}\|{after}\|[+−]?{difference}\|", table), measure
    points = [a for tag, a in Tags(page).tags if tag == "circle" and a["r"] == "5"]
    assert [attributes["class"] for attributes in points] == ["after", "open"], "decided, a copy"
    assert "What these queries cannot decide" in page


def test_differences_are_placed_on_one_scale_with_zero_in_it() -> None:
    better, copy = forest(several()).stems
    assert (better.low, better.high) == (pytest.approx(100 * 0.035 / 0.083), pytest.approx(100))
    assert better.point == pytest.approx(100 * 0.059 / 0.083)
    assert (copy.point, copy.low) == (0.0, None)
    assert forest(several()).zero == 0.0


def test_failures_show_both_lists_side_by_side() -> None:
    page = render(REPORT)
    words = " ".join(page.split())
    assert "5,678 relevant documents (1,234 queries; for 321 of them retrieval found none" in words
    assert "3 relevant documents (3 queries), from the first 10 of retrieval" in words
    assert "The worst 3 are listed." in words
    parsed = Tags(page)
    cases = [a for tag, a in parsed.tags if tag == "details" and a.get("class") == "case"]
    assert len(cases) == 4 * 3
    one = page.split('<details class="case">')[1].split("</details>")[0]
    assert '<span dir="auto">how to fail</span> 0.750 → 0.250' in one
    assert "|".join(cells(one)) == (
        "Place|Document|Grade|Reranked|1|doc-1|2|14|2|doc-2|–|1|"
        "Place|Document|Grade|Retrieval|1|doc-2|–|2|2|doc-3|0|31"
    )
    assert one.count('<tr class="relevant">') == 1
    assert "12 of 13 relevant" in one and "and 2 more." in one
    assert "(grade 2) from 1 to 14." in one


@pytest.mark.parametrize(
    "report",
    [REPORT, EMPTY, one_query(), several(), several(HOSTILE, HOSTILE)],
    ids=["full", "empty", "one", "several", "hostile names"],
)
def test_page_is_well_formed_closed_and_accessible(report: Report) -> None:
    page = render(report)
    parsed = Tags(page)
    assert parsed.open == []
    assert not parsed.names("script", "link", "img", "iframe", "object", "form")
    policies = [a["content"] for tag, a in parsed.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page.replace("url(#", "")
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)

    levels = [int(name[1]) for name in parsed.names("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(parsed.names("table")) == len(parsed.names("caption"))
    assert all(
        a.get("scope") in ("col", "row", "rowgroup") for tag, a in parsed.tags if tag == "th"
    )
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labels = " ".join(str(a["aria-labelledby"]) for _, a in parsed.tags if "aria-labelledby" in a)
    assert set(labels.split()) <= set(ids)


def test_hostile_text_stays_text() -> None:
    report = replace(
        one_query(HOSTILE, HOSTILE, HOSTILE),
        title=HOSTILE,
        run_id=HOSTILE,
        rejects={HOSTILE: 1},
        seconds={HOSTILE: 1.0},
        facts={HOSTILE: HOSTILE},
        depth=study(HOSTILE),
        failures=replace(failures(2, HOSTILE, HOSTILE), headline=HOSTILE),
    )
    page = render(report)
    assert "<script" not in page
    assert page.count(escape(HOSTILE)) >= 100
    assert Tags(page).open == []
    assert "<script" not in render(replace(report, depth=NotKnown(HOSTILE)))


def test_a_huge_query_is_cut() -> None:
    huge = replace(one_query(query="x" * 1_000_000), failures=failures(1, "x" * 1_000_000))
    page = render(huge)
    assert len(page) < 100_000
    assert "x…" in page


def test_without_judgements_it_says_how_to_add_them() -> None:
    page = render(EMPTY)
    assert verdict(EMPTY).outcome == "not judged"
    assert "No query of this run has relevance judgements" in page
    assert "<code>qrels: {path: …}</code>" in page
    assert "<svg" not in page
    assert "duplicate_id" in page and "1,834.02" in page


def test_fifty_thousand_queries_make_a_small_page() -> None:
    page = render(replace(REPORT, gains=gains(50_000), judged=50_000, failures=failures(10)))
    assert len(page.encode()) < 500_000
    paths = re.findall(r'<path class="(?:up|down)" d="([^"]*)"', page)
    assert 300 <= sum(path.count("z") for path in paths) <= 400
    assert "50,000 judged queries" in page


def test_order_of_the_gains_does_not_matter() -> None:
    assert render(REPORT) == render(replace(REPORT, gains=REPORT.gains[::-1]))


# --- in a browser --------------------------------------------------------------------------------

PHONE = """<!doctype html><body style="margin:0">
<iframe style="width:390px;height:2400px;border:0" srcdoc="{page}"></iframe>
<script>onload = () => {{
  const root = document.querySelector("iframe").contentDocument.documentElement;
  document.title = `${{root.scrollWidth}} of ${{root.clientWidth}}`;
}}</script>"""


def test_fits_a_phone(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on PATH")
    # A frame of 390 px, because a headless window is never that narrow.
    wrapper, picture = tmp_path / "phone.html", tmp_path / "phone.png"
    long = "no-place-to-break-" * 20
    report = replace(
        REPORT,
        title=long,
        run_id=long,
        rejects={long: 1},
        facts={long: long},
        failures=failures(2, long, long),
    )
    several_systems = several(long[:40], long)  # names are no longer
    report = replace(
        report,
        systems=several_systems.systems,
        best=long[:40],
        described=several_systems.described,
        means=several_systems.means,
        measures=several_systems.measures,
    )
    page = render(report).replace("<details", "<details open")
    wrapper.write_text(PHONE.format(page=escape(page)), encoding="utf-8")

    def browse(*action: str) -> str:
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--hide-scrollbars --window-size=500,2400"
        )
        command = [chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", *action]
        return subprocess.run(
            [*command, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    browse(f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000  # a blank page of this size is far smaller
    assert "<title>390 of 390</title>" in browse("--dump-dom")
