"""Measures: exactly what trec_eval says, and 0 where there is nothing to measure."""

import math
import subprocess
import sys

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.measures import parse_measures, per_query

NAMES = {"nDCG@10": "ndcg_cut_10", "RR": "recip_rank", "R@5": "recall_5", "AP": "map"}
MEASURES = parse_measures(list(NAMES))
TREC = {
    **NAMES,
    "nDCG": "ndcg",
    "nDCG@3": "ndcg_cut_3",
    "P@5": "P_5",
    "R@10": "recall_10",
    "AP@10": "map_cut_10",
    "Success@5": "success_5",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "NumRet": "num_ret",
}
TREC_MEASURES = parse_measures(list(TREC))
DOCUMENTS = [f"d{n:02d}" for n in range(16)]

QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-1, 3), min_size=1),
)
RANKINGS = st.fixed_dictionaries(
    {query: st.lists(st.sampled_from(DOCUMENTS), unique=True) for query in ("q1", "q2", "q4")}
)


@given(QRELS, RANKINGS)
@settings(max_examples=1_000, deadline=None)
def test_values_are_those_of_trec_eval(
    qrels: dict[str, dict[str, int]], rankings: dict[str, list[str]]
) -> None:
    """1,000 runs against trec_eval itself, without ir-measures between.

    q3 is judged and missing from the run, q4 is in the run and not judged, any ranking may be
    empty, grades are negative, zero and positive. Rankings hold no ties: documents come by place.
    trec_eval may never return where all grades of a query are negative, so it is not asked then.
    """
    found = per_query(TREC_MEASURES, list(TREC), qrels, rankings)
    assert set(found) == set(qrels) & set(rankings)
    ranked = {
        query: {document: float(-place) for place, document in enumerate(ranking)}
        for query, ranking in rankings.items()
        if ranking
    }
    asked = {query: grades for query, grades in qrels.items() if max(grades.values()) >= 0}
    evaluator = pytrec_eval.RelevanceEvaluator(asked, set(TREC.values()))
    expected = evaluator.evaluate(ranked) if ranked else {}
    for query, values in found.items():
        assert set(values) == set(TREC)
        nothing = dict.fromkeys(TREC.values(), 0.0) | {"num_ret": len(rankings[query])}
        for name, theirs in TREC.items():
            wanted = expected.get(query, nothing)[theirs]
            assert values[name] == pytest.approx(wanted, abs=1e-9), name


def test_a_hand_made_example() -> None:
    """Relevant documents at ranks 2 (grade 3) and 4 (grade 1), and one not found."""
    qrels = {"q": {"b": 3, "d": 1, "x": 1, "a": 0, "c": -1}}
    (values,) = per_query(MEASURES, list(NAMES), qrels, {"q": ["a", "b", "c", "d"]}).values()
    ideal = 3 + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["RR"] == 0.5
    assert values["R@5"] == pytest.approx(2 / 3)
    assert values["AP"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert values["nDCG@10"] == pytest.approx((3 / math.log2(3) + 1 / math.log2(5)) / ideal)


_SPAM = """
from rerank_batch.evaluation.measures import parse_measures, per_query
names = ["nDCG@10", "RR", "R@5", "AP"]
for grade in (-1, -2, -3, -100):
    qrels = {"q": {"a": grade, "b": 1}, "only": {"a": grade}}
    found = per_query(parse_measures(names), names, qrels, {"q": ["a", "b"], "only": ["a"]})
    assert found["q"]["RR"] == 0.5, found
    assert set(found["only"].values()) == {0.0}, found
"""


def test_negative_grades_are_not_relevant_and_crash_nothing() -> None:
    """TREC web tracks grade spam as -2, which makes trec_eval's own code write out of bounds."""
    done = subprocess.run([sys.executable, "-c", _SPAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"the process died with {done.returncode}"


def test_a_judged_query_that_found_nothing_scores_0_and_one_without_judgements_nothing() -> None:
    found = per_query(MEASURES, list(NAMES), {"q1": {"d": 1}}, {"q1": [], "q2": ["d"]})
    assert found == {"q1": dict.fromkeys(NAMES, 0.0)}
    assert per_query(MEASURES, list(NAMES), {}, {"q2": ["d"]}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "nDCG@ten",
        "Foo@10",
        "",
        "nDCG@",
        "nDCG@10@5",
        "__import__('os')",
        "10",
        "(",
        "nDCG@-1",
        "P",
        "R",
        "RBP",
        "ERR@20",
    ],
)
def test_what_is_no_measure_is_a_config_error_with_examples(name: str) -> None:
    with pytest.raises(ConfigError, match="write them as ir-measures does: nDCG@10") as error:
        parse_measures(["nDCG@10", name])
    assert repr(name) in str(error.value)


def test_no_measures_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="name at least one"):
        parse_measures([])


@pytest.mark.parametrize("names", [["MRR@10", "NDCG@10"], ["P@5", "Success@5", "AP@10"]])
def test_other_spellings_keep_the_name_they_were_asked_by(names: list[str]) -> None:
    (values,) = per_query(parse_measures(names), names, {"q": {"d": 1}}, {"q": ["d"]}).values()
    assert list(values) == names
    assert all(value > 0 for value in values.values())


@pytest.mark.parametrize("names", [["RR@10", "MRR@10"], ["AP", "AP"]])
def test_one_measure_by_two_names_is_refused_or_valued_twice(names: list[str]) -> None:
    """Never silently 0 under one of them, nor two columns of one name."""
    try:
        measures = parse_measures(names)
    except ConfigError:
        return
    (values,) = per_query(measures, names, {"q": {"d": 1}}, {"q": ["d"]}).values()
    assert len(values) == len(names)
    assert set(values.values()) == {1.0}


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_rank_biased_precision_is_that_of_its_formula(p: float) -> None:
    """(1 - p) times the sum of p^(rank - 1) over relevant documents (Moffat and Zobel, 2008)."""
    names = [f"RBP(p={p},rel=1)", "nDCG@10"]
    qrels = {"q": {"b": 1, "d": 2, "c": 0, "x": 1}, "empty": {"a": 1}}
    rankings = {"q": ["a", "b", "c", "d"], "empty": []}
    found = per_query(parse_measures(names), names, qrels, rankings)
    assert found["q"][names[0]] == pytest.approx((1 - p) * (p**1 + p**3), abs=1e-6)
    assert found["empty"][names[0]] == 0.0


SHALLOW = ["nDCG@3", "P@2", "R@4", "RR@2", "AP@3", "Success@1", "Judged@2"]


@given(QRELS, RANKINGS, st.sets(st.sampled_from(SHALLOW), min_size=1))
@settings(max_examples=300, deadline=None)
def test_what_no_measure_looks_at_is_not_handed_over(qrels, rankings, names) -> None:
    """Rankings are cut at the largest cutoff, which changes nothing; AP looks at all of them."""
    asked = sorted(names)
    cut = per_query(parse_measures(asked), asked, qrels, rankings)
    whole = per_query(parse_measures([*asked, "AP"]), [*asked, "AP"], qrels, rankings)
    assert cut == {query: {name: values[name] for name in asked} for query, values in whole.items()}


def test_a_measure_of_judged_documents_alone_looks_further_than_its_cutoff() -> None:
    names = ["nDCG(judged_only=True)@1"]
    found = per_query(parse_measures(names), names, {"q": {"b": 1}}, {"q": ["a", "b"]})
    assert found["q"][names[0]] == 1.0
