"""The sections on scores, gate and cost: true numbers in tables, safe with strangers' text."""

import json
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import pytest

from rerank_batch.config import GateConfig
from rerank_batch.evaluation.comparison import Comparison, measured_block, merged
from rerank_batch.evaluation.cost.study import cost_table
from rerank_batch.evaluation.gate.chart import gate_view
from rerank_batch.evaluation.gate.signals import SIGNALS, gate_signals, gate_study
from rerank_batch.evaluation.gate.study import GateStudy, OwnGate
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, JudgedQuery, RankedDocuments
from rerank_batch.evaluation.report import page as report_page
from rerank_batch.evaluation.scores.chart import ROW, score_view
from rerank_batch.evaluation.scores.samples import ScoredList
from rerank_batch.evaluation.scores.study import ScoreStudy, study_scores
from rerank_batch.remarks import NotKnown
from rerank_batch.retrieval.gate import Gate
from rerank_batch.schema import SYSTEMS
from tests.evaluation.cost.test_study import BOOK
from tests.evaluation.report.test_page import HOSTILE, Tags, cells

RERANKER = {"model": "cross-encoder:x", "gate": None, "stages": []}


def render(template: str, **values: Any) -> str:
    return report_page._TEMPLATE.environment.get_template(template).render(**values)


def scored(count: int = 60, judged: bool = True) -> list[ScoredList]:
    rng = np.random.default_rng(2)
    lists = []
    for number in range(count):
        relevant = rng.random(20) < 0.3
        values = np.sort(rng.normal(2 * relevant))[::-1]
        ids = [f"d{place}" for place in range(20)]
        grades = {ids[place]: int(relevant[place]) for place in range(14) if judged}
        grades |= {ids[place]: 1 for place in range(20) if relevant[place]}
        lists.append(ScoredList(f"q{number}", grades, ids, values.astype(np.float32)))
    return lists


def compared(lists: list[ScoredList], own: GateConfig | None, rejected: int = 0) -> Comparison:
    """Retrieval's lists as they are read, and a reranker that helps two queries in three."""
    blocks = [
        [
            JudgedQuery(each.query_id, [each.query_id], "", 1.0, dict(each.grades), lists, lists)
            for each in block
            for lists in [dict.fromkeys(SYSTEMS, RankedDocuments(list(each.doc_ids), each.scores))]
        ]
        for block in (lists[:9], lists[9:])
    ]
    parts = [
        measured_block(block, SYSTEMS, ("nDCG@10",), (), gate_signals(own)) for block in blocks
    ]
    found = merged(parts, SYSTEMS, [f"rejected-{n}" for n in range(rejected)], ("nDCG@10",))
    asked = np.array([not query.startswith("rejected") for query in found.query_ids])
    gains = 0.1 * (np.arange(found.queries) % 3)
    values = {RETRIEVAL: {"nDCG@10": 0.5 * asked}, RERANKED: {"nDCG@10": (0.5 + gains) * asked}}
    return replace(found, values=values)


def gate(
    reranker: Mapping[str, Any] | None = RERANKER, own: GateConfig | None = None, rejected: int = 0
) -> GateStudy | str:
    return gate_study(reranker, own, compared(scored(), own, rejected))


def known_gate(own: GateConfig | None = None) -> GateStudy:
    found = gate(own=own)
    assert isinstance(found, GateStudy)
    return found


def known_scores(judged: bool = True, name: str = "mine") -> ScoreStudy:
    found = study_scores([{name: scored(judged=judged)}])[name]
    assert isinstance(found, ScoreStudy)
    return found


def is_well_formed(section: str) -> bool:
    parsed = Tags(section)
    assert parsed.open == []
    assert not parsed.names("script", "link", "img", "iframe", "object", "form")
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labels = " ".join(str(a["aria-labelledby"]) for _, a in parsed.tags if "aria-labelledby" in a)
    assert set(labels.split()) <= set(ids)
    assert len(parsed.names("table")) == len(parsed.names("caption"))
    drawings = [a for tag, a in parsed.tags if tag == "svg" and "role" in a]
    assert all(a["role"] == "img" and "aria-labelledby" in a for a in drawings)
    assert all(a.get("scope") in ("col", "row") for tag, a in parsed.tags if tag == "th")
    return True


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("judged", [True, False], ids=["judged", "lower bounds"])
def test_every_bar_and_every_share_is_in_a_table(judged: bool) -> None:
    study = known_scores(judged)
    page = render("scores/section.html.j2", scores=[("mine", score_view(study))])
    table = "|".join(cells(page))
    for group in study.groups:
        low, high = group.interval
        assert (
            f"{study.text(group.low)}|{study.text(group.high)}|{group.documents}|{group.relevant}|"
            f"{100 * group.share:.1f} %|{100 * low:.1f} to {100 * high:.1f} %" in table
        )
    for bars in zip(*(each.counts for each in study.classes if each.documents), strict=True):
        assert all(f"|{count}|" in table for count in bars)
    assert is_well_formed(page)
    assert page.count("<circle") == len(study.groups)
    assert ("known to be relevant" in page) == (not judged)
    assert page.count('class="class-2"') == (sum(map(bool, study.classes[1].counts)) or 0)


def test_the_tallest_bar_of_all_kinds_is_as_tall_as_a_row() -> None:
    view = score_view(known_scores())
    heights = [bar.height for row in view.rows for bar in row.bars]
    assert max(heights) == pytest.approx(ROW)
    assert all(0 <= bar.x < bar.x + bar.width <= 100.001 for row in view.rows for bar in row.bars)
    assert all(0 <= tick.at <= 100 for tick in view.ticks)


def test_a_single_score_is_drawn_as_well() -> None:
    one = study_scores([{"mine": [ScoredList("q", {"d": 1}, ["d"], np.array([0.5], np.float32))]}])[
        "mine"
    ]
    assert isinstance(one, ScoreStudy)
    assert is_well_formed(render("scores/section.html.j2", scores=[("mine", score_view(one))]))


# --- gate ----------------------------------------------------------------------------------------


def test_every_point_of_every_curve_is_in_a_table() -> None:
    study = known_gate()
    page = render("gate/section.html.j2", gate=gate_view(study))
    table = "|".join(cells(page))
    assert [curve.signal for curve in study.curves] == list(SIGNALS)
    view = gate_view(study)
    for curve in study.curves:
        for point in curve.points:
            assert (
                f"{100 * point.skipped:.1f} %|{point.value:.4f}|{view.text(point.loss)}|"
                f"{view.text(point.bound)}|{study.at_random(point.skipped):.4f}" in table
            )
    assert is_well_formed(page)
    assert "configuration's gate" not in page.split("<h2")[1].split("</figure>")[0]


@pytest.mark.parametrize("signal", ["margin", "entropy", "margin@20"])
def test_the_own_gate_skips_whom_the_gate_itself_would_skip(signal: str) -> None:
    lists = scored()
    own = GateConfig(signal=signal, threshold=0.05 if signal != "entropy" else 0.2)
    study = known_gate(own)
    itself = Gate(signal, own.threshold or 0.0)
    skipped = [itself.is_sure(np.array(listed.scores, np.float32)) for listed in lists]
    curve = next(curve for curve in study.curves if curve.signal == signal)
    assert curve.own is not None
    assert curve.own.skipped == pytest.approx(np.mean(skipped))
    page = render("gate/section.html.j2", gate=gate_view(study))
    assert "the configuration's gate" in page.replace("&#39;", "'")
    assert is_well_formed(page)


def test_rejected_queries_count_in_the_means_and_are_skipped_last() -> None:
    study = gate(rejected=30)
    assert isinstance(study, GateStudy)
    assert study.queries == 90
    assert study.retrieval == pytest.approx(0.5 * 60 / 90)
    shares = [point.skipped for point in study.curves[0].points]
    assert shares[1] < 0.1 and 0.6 < shares[-2] <= 60 / 90 and shares[-1] == 1


@pytest.mark.parametrize(
    ("reranker", "why"),
    [
        (None, "it had no reranker"),
        ({**RERANKER, "gate": {"signal": "top1", "threshold": 0.5}}, "it had a gate itself (top1)"),
    ],
)
def test_runs_that_cannot_tell_are_refused_in_words(reranker, why) -> None:
    refused = gate(reranker)
    assert isinstance(refused, NotKnown) and refused.reason.startswith(why)
    assert why in render("gate/section.html.j2", gate=refused)


def test_a_gate_that_was_only_to_be_learned_skipped_nobody() -> None:
    learning = {**RERANKER, "gate": {"signal": "top1", "threshold": None}}
    assert isinstance(gate(learning), GateStudy)


def test_a_query_with_one_document_is_as_sure_as_can_be() -> None:
    lists = [ScoredList("q", {"d": 1}, ["d"], np.array([0.5], np.float32))]
    assert compared(lists, None).signals["margin"].tolist() == [np.inf]


# --- cost ----------------------------------------------------------------------------------------


def test_costs_are_a_row_per_model_and_a_total() -> None:
    page = render("cost/section.html.j2", costs=[("cascade", cost_table(BOOK, 400, "cascade"))])
    table = "|".join(cells(page))
    for row in (
        "late-interaction:x|50|20,000|80.00|250.0|–|–|–",
        "cohere:rerank|10|4,000|0.00|–|400 requests, 1 search unit|0.8000|2.00",
        "cluster, the whole run|||||",
        "0.2000|0.5000",
        "together||24,000|80.00|||1.00|2.50",
        "rerank|2|160.00",
    ):
        assert row in table
    assert is_well_formed(page)


def test_without_money_there_is_no_column_for_it() -> None:
    book = {**BOOK, "services": {}, "billed": 0.0, "cluster": None, "per_1000_queries": None}
    page = render("cost/section.html.j2", costs=[("cascade", cost_table(book, 400, "cascade"))])
    assert "Money" not in page and "Billed" not in page and "together" not in page
    assert "No price is known" in page


# --- all -----------------------------------------------------------------------------------------


def test_hostile_names_stay_text() -> None:
    study = known_scores(name=HOSTILE)
    curves = replace(known_gate(GateConfig(threshold=0.1)), measure=HOSTILE)
    curves = replace(
        curves,
        own=OwnGate("margin", 0.1, HOSTILE),
        curves=tuple(replace(each, signal=HOSTILE) for each in curves.curves),
    )
    model = {"model": HOSTILE, "depth": 5, "pairs": 1, "seconds": 1.0}
    pools = {HOSTILE: {"actors": 1, "cpu_seconds": 1.0, "gpu_seconds": 1.0}}
    book = {**BOOK, "models": [model], "pools": pools, "currency": HOSTILE}
    table = cost_table(book, 400, HOSTILE)
    for page in (
        render(
            "scores/section.html.j2",
            scores=[(HOSTILE, score_view(study)), ("b", NotKnown(HOSTILE))],
        ),
        render("gate/section.html.j2", gate=gate_view(curves)),
        render("gate/section.html.j2", gate=NotKnown(HOSTILE)),
        render("cost/section.html.j2", costs=[(HOSTILE, table), ("b", NotKnown(HOSTILE))]),
    ):
        assert "<script" not in page
        assert escape(HOSTILE) in page
        assert Tags(page).open == []


def test_summaries_are_json_and_hold_the_studies() -> None:
    study, curves = known_scores(), known_gate(GateConfig(threshold=0.1))
    table = cost_table(BOOK, 400, "cascade")
    found = json.loads(
        json.dumps([each.to_json() for each in (study, curves, table)], allow_nan=False)
    )
    density = found[0]["kinds"]["relevant"]["densities"]
    assert sum(density) * (study.edges[1] - study.edges[0]) == pytest.approx(1)
    assert found[0]["pairs"]["within"] == study.order.within
    assert found[1]["own"] == "margin at least 0.1"
    assert len(found[1]["signals"]["margin"]["points"]) == len(curves.curves[0].points)
    assert found[2]["models"][0]["pairs_per_second"] == 250
