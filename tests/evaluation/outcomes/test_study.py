"""Outcomes in the statistics: joined by query and system, tested in one family, said in words."""

import math
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rerank_batch.data.outcomes import OUTCOMES, Outcomes
from rerank_batch.evaluation.outcomes.study import (
    AnswerCase,
    OutcomeRow,
    OutcomeStudy,
    agreement,
    join,
    study_outcomes,
)
from rerank_batch.evaluation.report import page as report
from rerank_batch.evaluation.significance import paired_tests

SYSTEMS = ("retrieval", "reranked")


def outcomes(*values: tuple[str, str, str, float], **dropped: int) -> Outcomes:
    rows = [dict(zip(OUTCOMES.names, each, strict=True)) for each in values]
    table = pa.Table.from_pylist(rows, schema=OUTCOMES)
    return Outcomes(table.num_rows + sum(dropped.values()), table, dropped)


def study(found: Outcomes, ids: list[list[str]], **how: Any) -> OutcomeStudy:
    values = how.pop("values", {system: np.zeros(len(ids)) for system in SYSTEMS})
    return study_outcomes(found, list(values), ids, "nDCG@10", values, **how)


def series(outcome: str, before: list[float], after: list[float]) -> list[Any]:
    """A value of both systems for queries q0, q1 and so on; NaN is no row."""
    both = zip(SYSTEMS, (before, after), strict=True)
    return [
        (f"q{n}", system, outcome, value)
        for system, values in both
        for n, value in enumerate(values)
        if not math.isnan(value)
    ]


def ids(count: int) -> list[list[str]]:
    return [[f"q{n}"] for n in range(count)]


# --- the join --------------------------------------------------------------------------------


def test_the_join_by_hand() -> None:
    """Five queries, of which the first stands for two ids; every row and every query is counted."""
    found = outcomes(
        ("a", "retrieval", "thumb", 0), ("b", "retrieval", "thumb", 1),  # one query: 0.5
        ("a", "reranked", "thumb", 1),
        ("c", "retrieval", "thumb", 1), ("c", "reranked", "thumb", 0.25),
        ("d", "retrieval", "thumb", 1),
        ("e", "reranked", "thumb", 1),
        ("a", "ranked", "thumb", 1), ("z", "ranked", "thumb", 1),  # no such system
        ("z", "reranked", "thumb", 1),  # no such query
        missing_value=2,
    )  # fmt: skip
    table = study(found, [["a", "b"], ["c"], ["d"], ["e"], ["f"]])
    (row,) = table.rows
    assert (row.both, row.only_baseline, row.only_system, row.neither) == (2, 1, 1, 1)
    assert row.baseline_mean == 0.75
    assert row.mean == 0.625
    assert row.test is not None
    assert (row.test.queries, row.test.difference) == (2, -0.125)
    assert (row.test.wins, row.test.ties, row.test.losses) == (1, 0, 1)
    assert table.joined.dropped == {"missing_value": 2, "unknown_system": 2, "unknown_query": 1}
    assert (table.joined.rows, table.joined.used, table.joined.repeated) == (12, 7, 1)
    assert table.joined.in_words() == (
        "7 of 12 rows found their query and system; 2 without a value, 2 of another "
        "system (ranked), 1 of a query that is not judged here; 1 repeat a query, system and "
        "outcome: their mean counts"
    )


cells = st.tuples(
    st.sampled_from(["a", "b", "c", "x"]),
    st.sampled_from(["retrieval", "reranked", "other"]),
    st.sampled_from(["thumb", "grade"]),
    st.integers(-3, 3).map(float),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40))
def test_a_value_is_the_mean_of_all_rows_of_its_query_and_every_row_is_counted(rows) -> None:
    queries = [["a", "b"], ["c"]]
    joined, values = join(outcomes(*rows), SYSTEMS, queries)
    assert joined.rows == joined.used + sum(joined.dropped.values()) == len(rows)
    for outcome, by_system in values.items():
        for system, found in by_system.items():
            for number, aliases in enumerate(queries):
                mine = [v for q, s, o, v in rows if q in aliases and (s, o) == (system, outcome)]
                expected = sum(mine) / len(mine) if mine else math.nan
                assert found[number] == pytest.approx(expected, nan_ok=True)


def test_nothing_that_joins_is_told_and_nothing_fails() -> None:
    table = study(outcomes(("q0", "mine", "thumb", 1), ("q0", "yours", "thumb", 1)), ids(3))
    assert table.joined.in_words() == (
        "none of 2 rows found their query and system; 2 of another system (mine, yours)"
    )
    (row,) = table.rows
    assert (row.both, row.neither, row.test, row.mean) == (0, 3, None, None)
    assert "no query has thumb under both retrieval and reranked" in table.in_words(row)


# --- the statistics --------------------------------------------------------------------------


def test_outcomes_and_systems_are_one_family() -> None:
    """The p values are those of `paired_tests` over all outcomes and systems together."""
    rng = np.random.default_rng(5)
    systems = ("retrieval", "one", "two")
    values = {(o, s): rng.integers(0, 2, 60) * 1.0 for o in ("task", "thumb") for s in systems}
    values["thumb", "two"] += rng.integers(0, 2, 60)
    found = outcomes(
        *((f"q{n}", s, o, v) for (o, s), column in values.items() for n, v in enumerate(column))
    )
    measured = {system: np.zeros(60) for system in systems}
    rows = study_outcomes(found, systems, ids(60), "nDCG@10", measured).rows
    expected = paired_tests(
        {
            (o, s): list(values[o, s] - values[o, "retrieval"])
            for o in ("task", "thumb")
            for s in systems[1:]
        }
    )
    assert {(row.outcome, row.system): row.test for row in rows} == expected
    assert {row.test and row.test.comparisons for row in rows} == {4}
    decided = [row for row in rows if row.test and row.test.outcome == "better"]
    assert [(row.outcome, row.system) for row in decided] == [("thumb", "two")]


def test_of_an_outcome_of_which_less_is_better_a_fall_is_a_gain() -> None:
    before, after = [10.0] * 12, [4.0] * 12
    found = outcomes(*series("seconds", before, after))
    (row,) = study(found, ids(12), less_is_better=["seconds"]).rows
    assert row.test is not None
    assert (row.baseline_mean, row.mean, row.test.difference) == (10, 4, 6)
    assert row.test.outcome == "better"
    (row,) = study(found, ids(12)).rows
    assert row.test is not None and row.test.outcome == "worse"


def measured(gains: list[float]) -> dict[str, Any]:
    return {"retrieval": np.full(len(gains), 0.25), "reranked": np.array(gains) + 0.25}


def agreeing(gains: list[float], other: list[float]) -> tuple[OutcomeStudy, OutcomeRow]:
    found = outcomes(*series("thumb", [0.0] * len(other), other))
    table = study(found, ids(len(gains)), values=measured(gains))
    return table, table.rows[0]


def test_agreement_is_spearmans_over_the_queries_that_have_both() -> None:
    """Twelve queries; a judgement is missing of one and an outcome of another."""
    gains = [0.1, 0.3, -0.2, 0.0, 0.5, 0.4, -0.1, 0.2, 0.6, -0.3, math.nan, 0.7]
    other = [1.0, 2.0, -1.0, 0.0, 3.0, 1.0, 1.0, 0.0, 2.0, -2.0, 5.0, math.nan]
    table, row = agreeing(gains, other)
    found = row.agreement
    expected = stats.spearmanr(gains[:10], other[:10])
    assert (found.queries, row.both) == (10, 11)
    assert found.correlation == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    assert (found.same_way, found.opposite) == (7, 1)
    assert row.headline_difference == pytest.approx(np.mean(gains[:10]))
    # Bonett and Wright's interval, by hand.
    rho = float(expected.statistic)
    reach = 1.959964 * math.sqrt((1 + rho * rho / 2) / 7)
    assert found.interval == pytest.approx(
        (math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach)), abs=1e-6
    )
    assert "queries that gain in nDCG@10 tend to gain in thumb, strongly" in table.in_words(row)
    assert "of 8 that changed in both, 7 changed the same way" in table.in_words(row)


def test_what_cannot_be_told_of_agreement_is_said() -> None:
    few, row = agreeing([0.1, 0.2], [1.0, 2.0])
    assert row.agreement.correlation is None
    assert "2 queries with both nDCG@10 and thumb are too few" in few.in_words(row)
    flat, row = agreeing([0.1] * 12, [float(n) for n in range(12)])
    assert row.agreement.correlation is None
    assert "cannot be told: one of them gained the same in all of 12 queries" in flat.in_words(row)
    chance, row = agreeing([0.1, -0.1] * 6, [1.0, 1.0, 0.0, 0.0] * 3)
    assert "do not tell gains in thumb: any link can be chance" in chance.in_words(row)
    apart, row = agreeing([n / 12 for n in range(12)], [-float(n) for n in range(12)])
    assert row.agreement.interval == (-1, -1)
    assert "tend to lose in thumb" in apart.in_words(row)
    assert "pull apart" in apart.in_words(row)


def test_the_few_that_changed_in_both_by_chance_are_not_taken_for_agreement() -> None:
    """Two of thirty changed, the same two in both: one case in 435, and the p value is that."""
    gains = np.zeros(30)
    gains[:2] = 0.5
    assert agreement(gains, gains).p_value == pytest.approx(2 / 435, abs=0.002)
    assert stats.spearmanr(gains, gains).pvalue == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=10, max_size=30))
def test_agreement_is_the_same_both_ways_and_turns_with_a_sign(pairs) -> None:
    one, two = (np.array(each, float) for each in zip(*pairs, strict=True))
    found, back, turned = agreement(one, two), agreement(two, one), agreement(one, -two)
    assert (found.same_way, found.opposite) == (back.same_way, back.opposite)
    assert (found.same_way, found.opposite) == (turned.opposite, turned.same_way)
    if found.correlation is None or found.interval is None:
        assert len(set(one)) == 1 or len(set(two)) == 1
        return
    assert back.correlation == pytest.approx(found.correlation)
    assert turned.correlation == pytest.approx(-found.correlation)
    low, high = found.interval
    assert -1 <= low <= found.correlation + 1e-12 and found.correlation - 1e-12 <= high <= 1


# --- the page --------------------------------------------------------------------------------


class Page(HTMLParser):
    """Texts and open tags, to see that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.open = "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def render(found: OutcomeStudy) -> str:
    template = report._TEMPLATE.environment.get_template("outcomes/section.html.j2")
    return template.render(report=SimpleNamespace(outcomes=found))


def test_the_page_says_it_and_no_text_from_outside_breaks_it() -> None:
    hostile = "<script>alert(1)</script>"
    before, after = [0.0] * 12, [1.0, 0.0] * 6
    found = outcomes(
        *series("thumb", before, after), ("q0", hostile, "thumb", 1), ("q0", "reranked", hostile, 1)
    )
    table = study(found, ids(12), values=measured([0.1, -0.1] * 6))
    answers = (("retrieval", None, None), ("reranked", 3, hostile))
    table = OutcomeStudy(
        table.headline,
        table.baseline,
        table.rows,
        table.joined,
        ("llm:a answered 12 queries.",),
        (AnswerCase("q0", hostile, (hostile,), answers),),
    )
    page = Page(render(table))
    assert not page.open
    assert "<script" not in render(table)
    text = " ".join(page.text.split())
    assert "thumb, reranked: queries that gain in nDCG@10 tend to gain in thumb" in text
    assert "12 queries with both" in text and "llm:a answered 12 queries." in text
    assert "reranked, grade 3" in text and "retrieval, no grade" in text


def test_the_page_of_a_study_without_rows() -> None:
    empty = study(outcomes(missing_value=3), ids(2))
    text = Page(render(empty)).text
    assert "No outcome could be compared." in text
    assert "None of 3 rows found their query and system; 3 without a value." in text
