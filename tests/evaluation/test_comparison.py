"""Retrieval against reranked on a run small enough to check by hand."""

import math
from pathlib import Path

import pytest

from rerank_batch.evaluation.comparison import (
    METRICS,
    Comparison,
    compare,
    measured_block,
    merged,
)
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, judged_blocks
from tests.support.helpers import finished_run, result_row

MEASURES = ("nDCG@2", "RR")
SECOND = 1 / math.log2(3)  # what a relevant document at rank 2 is worth in DCG

# query, its ids, candidates (doc, retrieval score, reranker score)
BLOCKS = [
    [
        result_row(0, [("a", 0.9, 0.1), ("b", 0.8, 0.6), ("c", 0.7, 0.5)], ["better"]),
        result_row(1, [("b", 0.9, 0.5), ("a", 0.8, 0.5), ("c", 0.7, 0.5)], ["tied", "alias"]),
    ],
    [
        result_row(2, [("a", 0.9, 0.1), ("b", 0.8, 0.2), ("c", 0.7, 0.3)], ["worse"]),
        result_row(3, [("a", 0.9, 0.1)], ["unjudged"]),
        result_row(4, [], ["void"]),
    ],
]
QRELS = {
    "better": {"b": 1, "a": 0},
    "alias": {"b": 2, "c": 1},
    "worse": {"a": 1},
    "void": {"a": 1},
    "rejected": {"a": 1},
    "elsewhere": {"a": 1},
}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return compared(tmp_path, ["rejected"])


def compared(folder: Path, rejected: list[str]) -> Comparison:
    blocks = judged_blocks(finished_run(folder, BLOCKS).results_paths(), QRELS)
    return compare(blocks, (RETRIEVAL, RERANKED), rejected, MEASURES)


def by_query(comparison: Comparison, system: str) -> dict[str, dict[str, float]]:
    columns = {name: comparison.by_query(system, name) for name in MEASURES}
    return {
        query: {name: columns[name][query] for name in MEASURES} for query in comparison.query_ids
    }


def test_values_are_those_computed_by_hand(comparison: Comparison) -> None:
    ideal = 2 + SECOND  # grades 2 and 1
    assert by_query(comparison, RETRIEVAL) == {
        "better": {"nDCG@2": pytest.approx(SECOND), "RR": 0.5},
        "tied": {"nDCG@2": pytest.approx(2 / ideal), "RR": 1.0},
        "worse": {"nDCG@2": 1.0, "RR": 1.0},
        "void": {"nDCG@2": 0.0, "RR": 0.0},
        "rejected": {"nDCG@2": 0.0, "RR": 0.0},
    }
    assert by_query(comparison, RERANKED) == {
        "better": {"nDCG@2": 1.0, "RR": 1.0},
        # All three scores tie, so the ids decide: a, b, c.
        "tied": {"nDCG@2": pytest.approx(2 * SECOND / ideal), "RR": 0.5},
        "worse": {"nDCG@2": 0.0, "RR": pytest.approx(1 / 3)},
        "void": {"nDCG@2": 0.0, "RR": 0.0},
        "rejected": {"nDCG@2": 0.0, "RR": 0.0},
    }


def test_means_are_over_all_judged_queries_rejected_ones_too(comparison: Comparison) -> None:
    means = comparison.means()
    assert means["retrieval"]["RR"] == pytest.approx((0.5 + 1 + 1) / 5)
    assert means["reranked"]["RR"] == pytest.approx((1 + 0.5 + 1 / 3) / 5)


def test_values_of_both_systems_are_paired_by_query(comparison: Comparison) -> None:
    before, after = (comparison.values[system]["RR"] for system in (RETRIEVAL, RERANKED))
    assert comparison.query_ids == ("better", "rejected", "tied", "void", "worse")
    assert before.tolist() == [0.5, 0.0, 1.0, 0.0, 1.0]
    assert after.tolist() == [1.0, 0.0, 0.5, 0.0, pytest.approx(1 / 3)]
    gains = comparison.gains(RERANKED, "RR").tolist()
    assert gains == [0.5, 0.0, -0.5, 0.0, pytest.approx(-2 / 3)]
    assert (comparison.baseline, comparison.best) == (RETRIEVAL, RERANKED)


def test_the_table_has_a_row_per_query_system_and_measure(comparison: Comparison) -> None:
    table = comparison.table()
    assert table.schema == METRICS
    assert table.num_rows == 5 * 2 * 2
    rows = {(r["query_id"], r["system"], r["measure"]): r for r in table.to_pylist()}
    assert rows["worse", "reranked", "nDCG@2"]["value"] == 0.0
    assert rows["worse", "retrieval", "nDCG@2"]["value"] == 1.0
    assert rows["worse", "retrieval", "nDCG@2"]["weight"] == 1.0


def test_queries_are_told_by_their_text(comparison: Comparison) -> None:
    texts = dict(zip(comparison.query_ids, comparison.texts, strict=True))
    assert texts["better"] == "query number 0"
    assert texts["rejected"] == ""


@pytest.mark.parametrize("rejected", ["better", "alias", "tied"])
def test_a_rejected_row_does_not_erase_the_query_that_other_rows_planned(
    tmp_path: Path, comparison: Comparison, rejected: str
) -> None:
    """A log may hold one id twice, once with an empty text; `Run.rejected_ids` names it then."""
    again = compared(tmp_path / "again", ["rejected", rejected])
    assert again.query_ids == comparison.query_ids
    for system in (RETRIEVAL, RERANKED):
        assert by_query(again, system) == by_query(comparison, system)


def test_blocks_may_come_in_any_order(tmp_path: Path, comparison: Comparison) -> None:
    blocks = list(judged_blocks(finished_run(tmp_path / "b", BLOCKS).results_paths(), QRELS))
    parts = [measured_block(block, comparison.systems, MEASURES, ["rejected"]) for block in blocks]
    again = merged(parts[::-1], comparison.systems, ["rejected"], MEASURES)
    assert again.table().equals(comparison.table())
