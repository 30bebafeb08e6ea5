"""The depth advisor: one scored run answers for every smaller depth, and says what it means."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.errors import InputError
from rerank_batch.evaluation.comparison import compare
from rerank_batch.evaluation.depth.study import DepthRow, DepthStudy, depth_study, study_block
from rerank_batch.evaluation.findings import Questions, conclude, find
from rerank_batch.evaluation.judged import RERANKED, JudgedQuery, judged_blocks
from rerank_batch.schema import SYSTEMS
from rerank_batch.workflows.run_systems import depths_of, why_no_depth
from tests.evaluation.finished import DEPTH, gated, judged_query, row, write_run
from tests.support.helpers import result_row

MEASURES = ("nDCG@10", "RR", "R@5")


def judged(candidates: list[tuple[str, float, float]], *relevant: str) -> JudgedQuery:
    return judged_query(result_row(0, candidates, ["q"]), dict.fromkeys(relevant, 1))


def study_depths(
    blocks: Iterable[list[JudgedQuery]], measures: tuple[str, ...], depth: int, queries: int
) -> DepthStudy:
    parts = [study_block(block, RERANKED, measures, depth) for block in blocks]
    return depth_study(parts, measures, queries)


def curve(*values: float, pairs_each: int = 10) -> DepthStudy:
    """A study with depths 0, 5, 10, 20 and so on."""
    depths = (0, 5, 10, 20, 30, 50, 100, 200)
    rows = [
        DepthRow(depth, {"nDCG@10": value}, 0.5, pairs_each * depth)
        for depth, value in zip(depths, values, strict=False)
    ]
    return DepthStudy("nDCG@10", tuple(rows), pa.table({}))


# --- values ----------------------------------------------------------------------------------

ids = st.text("abc", min_size=1, max_size=3)
numbers = st.sampled_from([0.0, 0.25, 0.5, 0.75])  # few, so that there are ties
lists = st.dictionaries(ids, st.tuples(numbers, numbers), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(lists, st.sets(ids, min_size=1, max_size=5), st.integers(1, 35))
def test_every_depth_is_what_reranking_only_so_many_would_have_given(found, relevant, depth):
    candidates = [(doc, before, after) for doc, (before, after) in found.items()]
    row = result_row(0, candidates, ["q"])
    read = [{**hit, "score": hit["score"] if place < depth else None}
            for place, hit in enumerate(row["candidates"])]  # fmt: skip
    first = sorted(found, key=lambda doc: (-found[doc][0], doc))
    whole = sorted(first[:depth], key=lambda doc: (-found[doc][1], doc)) + first[depth:]
    run = [{**hit, "rank": whole.index(hit["doc_id"]) + 1} for hit in read]
    query = judged_query({**row, "candidates": run}, dict.fromkeys(relevant, 1))
    study = study_depths([[query]], ("RR",), depth, queries=1)
    assert [each.depth for each in study.rows] == [
        0, *(each for each in (5, 10, 20, 30) if each < depth), depth,
    ]  # fmt: skip
    for each in study.rows:
        head = sorted(first[: each.depth], key=lambda doc: (-found[doc][1], doc))
        places = [
            place
            for place, doc in enumerate(head + first[each.depth :], start=1)
            if doc in relevant
        ]
        assert each.values["RR"] == pytest.approx(1 / places[0] if places else 0)
        assert each.recall == pytest.approx(
            len(relevant & set(first[: each.depth])) / len(relevant)
        )
        assert each.pairs == min(each.depth, len(first))


@pytest.mark.parametrize("read", [DEPTH, 7], ids=["all candidates", "reranker.depth"])
def test_at_its_own_depth_it_is_the_run_to_the_last_bit(tmp_path: Path, read: int) -> None:
    rows = [row(n, 1 + n % 12, 1 + n * 7 % read) for n in range(25)]
    for each in rows:
        head = sorted(each["candidates"][:read], key=lambda hit: hit["rank"])
        order = [hit["doc_id"] for hit in [*head, *each["candidates"][read:]]]
        for place, hit in enumerate(each["candidates"]):
            hit["rank"] = order.index(hit["doc_id"]) + 1
            hit["score"] = hit["score"] if place < read else None
    run = write_run(tmp_path, rows)
    qrels = {f"q{n}": {"d01": 2, "d03": 1, "lost": 1} for n in range(26)}
    blocks = list(judged_blocks(run.results_paths(), qrels))
    comparison = compare(blocks, SYSTEMS, ["q25"], MEASURES)
    study = study_depths(blocks, MEASURES, read, comparison.queries)
    means = comparison.means()
    assert dict(study.rows[-1].values) == means["reranked"]
    assert dict(study.rows[0].values) == means["retrieval"]
    last = study.table.slice(study.table.num_rows - 25).to_pylist()
    for name in MEASURES:
        reranked = comparison.by_query(RERANKED, name)
        assert {each["query_id"]: each[name] for each in last} | {"q25": 0.0} == reranked
    assert study.rows[-1].pairs == 25 * read


def test_a_query_that_no_reranker_read_costs_nothing_and_keeps_its_order(tmp_path: Path) -> None:
    rows = [row(0, 12, 1), gated(row(1, 4, 4))]
    run = write_run(tmp_path, rows)
    qrels = {"q0": {"d01": 1}, "q1": {"d01": 1}}
    study = study_depths(judged_blocks(run.results_paths(), qrels), ("RR",), DEPTH, 2)
    assert [each.pairs for each in study.rows] == [0, 5, 10, 12]
    assert [each.values["RR"] for each in study.rows] == [
        pytest.approx((1 / 12 + 1 / 4) / 2),
        pytest.approx((1 / 12 + 1 / 4) / 2),
        pytest.approx((1 / 12 + 1 / 4) / 2),
        pytest.approx((1 + 1 / 4) / 2),
    ]
    assert [each.recall for each in study.rows] == [0, 0.5, 0.5, 1]


def test_scores_that_end_early_are_refused() -> None:
    query = judged([("a", 0.9, 0.1), ("b", 0.8, 0.6), ("c", 0.7, 0.5)], "a")
    reranked = query.lists[RERANKED]
    reranked.scores[reranked.doc_ids.index("c")] = np.nan
    with pytest.raises(InputError, match="query q has scores for 2 of its first 3 candidates"):
        study_depths([[query]], MEASURES, 3, 1)
    assert study_depths([[query]], MEASURES, 2, 1).rows[-1].pairs == 2


def test_the_table_has_a_row_per_query_and_depth() -> None:
    study = study_depths([[judged([("a", 0.9, 0.1), ("b", 0.8, 0.6)], "b")]], MEASURES, 6, 1)
    assert study.table.column_names == ["query_id", "depth", "pairs", "recall", *MEASURES]
    assert study.table.column("depth").to_pylist() == [0, 5, 6]
    assert study.table.column("RR").to_pylist() == [0.5, 1, 1]


# --- what it means ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "knee"),
    [
        pytest.param((0.4, 0.5, 0.55, 0.57, 0.58, 0.5815), 30, id="it flattens"),
        pytest.param((0.4, 0.5, 0.5005, 0.5, 0.55, 0.55), 30, id="it pauses and rises again"),
        pytest.param((0.4, 0.5, 0.58, 0.57, 0.55, 0.5), 10, id="it falls behind its top"),
        pytest.param((0.4, 0.5, 0.55, 0.57, 0.58, 0.6), 50, id="it still rises"),
        pytest.param((0.4, 0.39, 0.4, 0.401, 0.3), 0, id="reranking does not pay"),
        pytest.param((0.4, 0.4015, 0.403, 0.4045), 10, id="small steps add up"),
    ],
)
def test_the_knee_is_the_least_depth_that_no_larger_one_beats(values, knee) -> None:
    assert curve(*values).knee.depth == knee


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.4, 0.5, 0.55, 0.57, 0.58, 0.5815),
         "beyond 30 candidates nDCG@10 rises by less than 0.002 and cost by 67 %"),
        ((0.4, 0.5, 0.58, 0.57, 0.55, 0.5),
         "beyond 10 candidates nDCG@10 does not rise (at 50 it is 0.0800 lower), "
         "cost rises by 400 %"),
        ((0.4, 0.5, 0.55, 0.57, 0.58, 0.6),
         "from 30 to 50 candidates nDCG@10 still rises by 0.0200 and cost by 67 %; "
         "more than the run has may raise it further"),
        ((0.4, 0.5),
         "from 0 to 5 candidates nDCG@10 still rises by 0.1000; "
         "more than the run has may raise it further"),
        ((0.4, 0.39, 0.4, 0.401),
         "with the reranker nDCG@10 rises by less than 0.002 at any depth: "
         "retrieval alone would do"),
        ((0.4, 0.3, 0.3, 0.3),
         "with the reranker nDCG@10 does not rise at any depth (at 20 it is 0.1000 lower): "
         "retrieval alone would do"),
    ],
)  # fmt: skip
def test_it_says_what_a_user_wants_to_know(values, words) -> None:
    assert curve(*values).in_words() == words


ONE: dict[str, Any] = {"model": "cross-encoder:x", "depth": 7, "method": "yes-no", "stages": []}


@pytest.mark.parametrize(
    ("reranker", "why"),
    [
        pytest.param({**ONE, "stages": [ONE, ONE]}, "a cascade of 2 stages", id="cascade"),
        pytest.param({**ONE, "model": "llm:m", "method": "listwise"}, "whole lists", id="listwise"),
        pytest.param({**ONE, "model": "jina:jina-reranker-v3"}, "whole lists", id="jina v3"),
    ],
)
def test_runs_that_cannot_tell_are_refused_in_words(tmp_path: Path, reranker, why) -> None:
    run = write_run(tmp_path, [row(0, 3, 1)], reranker=reranker)
    assert depths_of(run) == {}
    assert why in why_no_depth(run, RERANKED).reason


@pytest.mark.parametrize("reranker", [ONE, {"model": None, "stages": [ONE]}])
def test_one_model_is_studied_up_to_what_it_read(tmp_path: Path, reranker) -> None:
    run = write_run(tmp_path, [row(0, 3, 1)], reranker=reranker)
    questions = Questions(MEASURES, SYSTEMS, depths_of(run))
    found = conclude(find(run.results_paths(), {"q0": {"d01": 1}}, questions), questions)
    assert [each.depth for each in found.depths[RERANKED].rows] == [0, 5, 7]
