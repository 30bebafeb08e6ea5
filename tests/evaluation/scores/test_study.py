"""What scores mean: where they lie, whom they put first, what share of a score is relevant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import mannwhitneyu
from statsmodels.stats.proportion import proportion_confint

from rerank_batch.errors import InputError
from rerank_batch.evaluation.readable import digits_of, number_text, percent, round_edges
from rerank_batch.evaluation.scores.calibration import calibrate_scores, calibration_error
from rerank_batch.evaluation.scores.samples import ScoredList, higher_and_equal
from rerank_batch.evaluation.scores.study import ScoreStudy, study_scores
from rerank_batch.remarks import NotKnown


def listed(query: str, *documents: tuple[int | None, float | None]) -> ScoredList:
    """A query's list of (grade, score)."""
    ids = [f"d{number}" for number in range(len(documents))]
    grades = {
        doc_id: grade
        for doc_id, (grade, _) in zip(ids, documents, strict=True)
        if grade is not None
    }
    scores = np.array([score for _, score in documents], np.float64)  # None is NaN
    return ScoredList(query, grades, ids, scores)


def study(*lists: ScoredList, **options: Any) -> ScoreStudy:
    found = study_scores([{"mine": lists}], **options)["mine"]
    assert isinstance(found, ScoreStudy)
    return found


def random_lists(queries: int, depth: int = 30, seed: int = 0) -> list[ScoredList]:
    """A good scorer, all of whose documents are judged or not at random."""
    rng = np.random.default_rng(seed)
    return [
        listed(
            f"q{number}",
            *(
                (None if rng.random() < 0.4 else int(relevant), float(rng.normal(2 * relevant)))
                for relevant in rng.random(depth) < 0.3
            ),
        )
        for number in range(queries)
    ]


# --- distributions -------------------------------------------------------------------------------


def test_every_document_is_counted_where_it_lies() -> None:
    found = study(
        listed("a", (2, 0.9), (None, 0.8), (0, 0.31), (1, None)),
        listed("b", (1, 0.5), (None, 0.1), (None, 0.12), (-1, None)),
    )
    relevant, not_relevant, not_judged = found.classes
    assert [each.documents for each in found.classes] == [2, 1, 3]
    assert [each.median for each in found.classes] == [0.7, 0.31, 0.12]
    assert found.unread == 2
    assert found.edges[0] <= 0.1 and found.edges[-1] >= 0.9
    bins = np.searchsorted(found.edges, [0.5, 0.9, 0.31], side="right") - 1
    assert [relevant.counts[bins[0]], relevant.shares[min(bins[1], len(relevant.counts) - 1)]] == [
        1, 0.5,
    ]  # fmt: skip
    assert not_relevant.counts[bins[2]] == 1
    assert sum(not_judged.counts) == 3
    assert not found.sampled


def test_without_any_score_it_says_so() -> None:
    assert study_scores([{"mine": [listed("a", (1, None))]}]) == {
        "mine": NotKnown("none of its documents has a score")
    }


@pytest.mark.parametrize("score", [float("inf"), float("-inf")])
def test_a_score_that_is_none_is_refused_with_its_place(score: float) -> None:
    with pytest.raises(InputError, match=r"mine: query q7 has the score (inf|-inf)"):
        study(listed("q7", (1, 0.5), (0, score)))


grades = st.sampled_from([None, -1, 0, 1, 3])
scores = st.none() | st.sampled_from([-4.0, 0.0, 0.5, 0.75]) | st.floats(-9, 9)
queries = st.lists(st.lists(st.tuples(grades, scores), max_size=12), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(queries, st.randoms(use_true_random=False), st.sampled_from([5, 200_000]))
def test_neither_order_nor_blocks_change_anything(documents, random, sample) -> None:
    """Not even where only a sample is kept."""
    lists = [listed(f"q{number}", *each) for number, each in enumerate(documents)]
    other = random.sample(lists, len(lists))
    cut = random.randrange(len(lists) + 1)
    once = study_scores([{"mine": lists}], sample)
    assert study_scores([{"mine": other[:cut]}, {"mine": other[cut:]}], sample) == once


def test_memory_is_bounded_and_a_sample_says_that_it_is_one() -> None:
    lists = random_lists(200)
    whole, part = study(*lists), study(*lists, sample=500)
    assert part.sampled and not whole.sampled
    assert [each.documents for each in part.classes] == [each.documents for each in whole.classes]
    assert sum(sum(each.counts) for each in part.classes) == 2 * 500  # judged, and the others
    assert part.order.within == whole.order.within, "pairs are counted, not sampled"
    assert part.order.across == pytest.approx(whole.order.across, abs=0.05)
    judged = sum(each.documents for each in whole.classes[:2])
    assert sum(group.documents for group in part.groups) == pytest.approx(judged, abs=10)


def test_systems_are_studied_apart() -> None:
    found = study_scores([{"a": [listed("q", (1, 0.1))], "b": []}, {"b": [listed("q", (0, 7.0))]}])
    one, two = found["a"], found["b"]
    assert isinstance(one, ScoreStudy) and isinstance(two, ScoreStudy)
    assert [each.documents for each in one.classes] == [1, 0, 0]
    assert [each.documents for each in two.classes] == [0, 1, 0]


# --- order ---------------------------------------------------------------------------------------


def test_pairs_of_one_query_and_of_any_two() -> None:
    """Within a query 4 of 5 pairs, one of them by halves; across queries 12 of 18."""
    one = listed("a", (1, 5.0), (0, 4.0), (0, 5.0), (1, 4.5))  # 5>4, 5=5, 4.5>4, 4.5<5
    two = listed("b", (1, 2.0), (0, 1.0), *[(0, 9.0)] * 0)
    padding = listed("c", *[(0, 0.0)] * 7)  # ten of them are needed; no relevant one, so no pair
    found = study(one, two, padding)
    assert found.order.pairs == 5
    assert found.order.within == (1 + 0.5 + 1 + 0 + 1) / 5
    relevant, others = [5.0, 4.5, 2.0], [4.0, 5.0, 1.0, *[0.0] * 7]
    assert found.order.across == mannwhitneyu(relevant, others).statistic / 30
    assert found.order.others == "judged not relevant"


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.integers(-3, 3), min_size=1, max_size=20)] * 2)
def test_pairs_in_order_are_the_statistic_of_mann_and_whitney(ones, others) -> None:
    higher, equal = higher_and_equal(np.array(ones, float), np.array(others, float))
    assert higher + equal / 2 == mannwhitneyu(ones, others, method="asymptotic").statistic


def test_a_perfect_scorer_orders_every_pair_and_never_promises_less_for_more() -> None:
    found = study(*(listed(f"q{n}", (1, 3 + n / 99), (0, n / 99), (0, -1.0)) for n in range(60)))
    assert (found.order.within, found.order.across) == (1, 1)
    shares = [group.share for group in found.groups]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert found.calibration is not None and found.calibration.error < 0.05


def test_scores_that_lie_apart_from_query_to_query_order_lists_only() -> None:
    lists = [listed(f"q{n}", (1, n + 0.1), (0, float(n)), (0, n - 0.1)) for n in range(40)]
    found = study(*lists)
    assert found.order.within == 1
    assert found.order.across is not None and found.order.across < 0.6
    assert "scores order a list better than they compare lists" in found.in_words()[0]


# --- what a score promises -----------------------------------------------------------------------


def test_tenths_of_the_judged_documents_with_the_intervals_of_wilson() -> None:
    """Documents 0 to 99 by score, of which those from 50 on and every tenth before are relevant."""
    documents = [(int(n >= 50 or n % 10 == 0), float(n)) for n in range(100)]
    found = study(listed("q", *documents, (None, 1000.0)))
    assert [(group.low, group.high) for group in found.groups] == [
        (10.0 * tenth, 10.0 * tenth + 9) for tenth in range(10)
    ]
    assert [group.relevant for group in found.groups] == [1] * 5 + [10] * 5
    assert {group.documents for group in found.groups} == {10}
    wilson = proportion_confint(1, 10, alpha=0.05, method="wilson")
    assert found.groups[0].interval == pytest.approx(wilson)
    assert found.in_words()[1] == (
        "A score of 90.0 or more is relevant in 10 of 10 judged documents (100 %, 95 % interval "
        "72.2 % to 100 %), one of 9.0 or less in 1 of 10 (10 %)."
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 15)), min_size=25, max_size=200))
def test_groups_hold_every_judged_document_and_share_no_score(documents) -> None:
    negatives = [(0, -1)] * 10
    found = study(listed("q", *negatives, *((grade, float(score)) for grade, score in documents)))
    assert sum(group.documents for group in found.groups) == len(documents) + 10
    assert sum(group.relevant for group in found.groups) == sum(grade for grade, _ in documents)
    assert all(
        one.low <= one.high < two.low
        for one, two in zip(found.groups, found.groups[1:], strict=False)
    )


def test_few_distinct_scores_are_a_group_each() -> None:
    documents = [(0, 0.0)] * 95 + [(1, 1.0)] * 3 + [(1, 2.0), (0, 2.0)]
    found = study(listed("q", *documents))
    assert [(group.low, group.documents, group.relevant) for group in found.groups] == [
        (0, 95, 0), (1, 3, 3), (2, 2, 1),
    ]  # fmt: skip


def test_where_nothing_was_judged_as_not_relevant_shares_are_lower_bounds() -> None:
    """Groups halve upwards: 160 documents of which the best 30 are relevant."""
    found = study(listed("q", *((1 if n >= 130 else None, float(n)) for n in range(160))))
    assert found.is_lower_bound
    assert [(group.low, group.documents, group.relevant) for group in found.groups] == [
        (0, 80, 0), (80, 40, 0), (120, 20, 10), (140, 20, 20),
    ]  # fmt: skip
    assert found.order.others == "not judged" and found.order.within == 1
    assert "is known to be relevant in 20 of 20 documents" in found.in_words()[1]
    assert found.calibration is None


# --- calibration ---------------------------------------------------------------------------------


def draws(count: int, slope: float, intercept: float) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 2, count)
    relevant = rng.random(count) < expit(intercept + slope * scores)
    return scores, relevant, rng.integers(0, 5, count)


def test_a_logistic_relation_is_found_and_holds_on_other_queries() -> None:
    fit = calibrate_scores(*draws(20_000, slope=0.8, intercept=-2.0))
    assert fit is not None
    assert fit[0].slope == pytest.approx(0.8, rel=0.05)
    assert fit[0].intercept == pytest.approx(-2.0, rel=0.05)
    assert fit[0].error < 0.01
    assert fit[0].error_as_is > 0.1


def test_scores_that_are_probabilities_are_right_as_they_are() -> None:
    logits, relevant, folds = draws(20_000, slope=1.0, intercept=0.0)
    fit = calibrate_scores(expit(logits), relevant, folds)
    assert fit is not None
    assert fit[0].error_as_is < 0.01


def test_the_error_is_the_mean_distance_of_the_groups() -> None:
    """Twenty documents, two a group: one group is off by 0.5, another by 0.25, the rest by none."""
    probabilities = np.array([*[0.0] * 16, 0.5, 0.5, 0.75, 0.75])
    relevant = np.array([False] * 18 + [True, True])
    assert calibration_error(probabilities, relevant) == pytest.approx((2 * 0.5 + 2 * 0.25) / 20)


def test_no_query_has_a_say_in_its_own_probabilities() -> None:
    scores, relevant, folds = draws(400, slope=1.0, intercept=0.0)
    once = calibrate_scores(scores, relevant, folds)
    other = calibrate_scores(scores, np.where(folds == 2, ~relevant, relevant), folds)
    assert once is not None and other is not None
    assert (once[1][folds == 2] == other[1][folds == 2]).all()
    assert (once[1][folds != 2] != other[1][folds != 2]).all()


def test_scores_without_an_error_are_not_taken_for_certain() -> None:
    """Two scores, a hundred documents each: the probabilities are the targets of Platt."""
    relevant = np.arange(200) >= 100
    fit = calibrate_scores(relevant.astype(float), relevant, np.arange(200) % 5)
    assert fit is not None
    low, high = expit(fit[0].intercept), expit(fit[0].intercept + fit[0].slope)
    assert (low, high) == pytest.approx((1 / 102, 101 / 102), rel=1e-3)


def test_few_documents_are_not_fitted() -> None:
    scores, folds = np.arange(200.0), np.arange(200) % 5
    assert calibrate_scores(scores, scores >= 150, folds) is not None
    assert calibrate_scores(scores, scores >= 151, folds) is None


# --- numbers for people --------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.just(0.0) | st.floats(1e-9, 1e6), st.integers(3, 40))
def test_edges_are_round_and_hold_everything(low: float, span: float, most: int) -> None:
    edges = round_edges(low, low + span, most)
    step = edges[1] - edges[0]
    slack = 1e-9 * (abs(low) + span)
    assert edges[0] <= low + slack and edges[-1] >= low + span - slack
    assert 2 <= len(edges) <= most + 3
    assert np.diff(edges) == pytest.approx(step, rel=1e-3)
    assert len({number_text(edge, digits_of(edges)) for edge in edges}) == len(edges)


@pytest.mark.parametrize(
    ("edges", "digits"),
    [((0, 0.05), 2), ((0, 0.025), 3), ((-1, 1.5), 1), ((0, 20), 0), ((0, 0.1), 1), ((3, 3.01), 2)],
)
def test_edges_are_written_with_the_digits_they_need(edges: Sequence[float], digits: int) -> None:
    assert digits_of(edges) == digits


def test_rounding_hides_no_sign_and_no_remainder() -> None:
    assert [number_text(each, 2) for each in (-1.234, -0.001, 12345)] == [
        "−1.23", "0.00", "12,345.00",
    ]  # fmt: skip
    assert [percent(each) for each in (0, 1e-9, 0.125, 0.99999, 1)] == [
        "0 %", "< 0.1 %", "12.5 %", "> 99.9 %", "100 %",
    ]  # fmt: skip
