"""The failure browser: who was helped and hurt, and whether retrieval or the reranker failed."""

from pathlib import Path

from rerank_batch.evaluation.failures.study import (
    MAX_CASES,
    TOP,
    Case,
    Failures,
    ListedDocument,
    Moved,
    find_failures,
    joined,
)
from rerank_batch.evaluation.findings import Questions, conclude, find
from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.schema import SYSTEMS
from tests.evaluation.finished import Row, judged_query, row, write_run
from tests.support.helpers import result_row

MEASURE = "RR"


def failures(root: Path, rows: list[Row], qrels: dict[str, dict[str, int]]) -> Failures:
    questions = Questions((MEASURE,), SYSTEMS)
    part = find(write_run(root, rows).results_paths(), qrels, questions)
    return conclude(part, questions).failures["reranked"]


def case_of(query: JudgedQuery) -> Case:
    return look_through([query], {query.query_id: 1.0}, {query.query_id: 0.5}).hurt[0]


def look_through(
    queries: list[JudgedQuery], before: dict[str, float], after: dict[str, float]
) -> Failures:
    return find_failures(queries, SYSTEMS, MEASURE, before, after)


def ids(cases: list[Case] | tuple[Case, ...]) -> list[str]:
    return [case.query_id for case in cases]


def test_both_lists_with_grades_and_places_in_the_other() -> None:
    row = result_row(0, [("a", 0.9, 0.1), ("b", 0.8, 0.6), ("c", 0.7, 0.5)])
    case = case_of(judged_query(row, {"a": 0, "c": 2}))
    assert case.retrieval == (
        ListedDocument("a", 0, 3),
        ListedDocument("b", None, 1),
        ListedDocument("c", 2, 2),
    )
    assert case.reranked == (
        ListedDocument("b", None, 2),
        ListedDocument("c", 2, 3),
        ListedDocument("a", 0, 1),
    )
    assert [hit.relevant for hit in case.retrieval] == [False, False, True]
    assert (case.text, case.before, case.after, case.gain) == ("query number 0", 1.0, 0.5, -0.5)


def test_a_list_is_shown_to_its_tenth_place(tmp_path: Path) -> None:
    rows = [row(0, 1, 12)]
    found = failures(tmp_path, rows, {"q0": {"d01": 1}})
    (case,) = found.hurt
    first = [hit["doc_id"] for hit in rows[0]["candidates"]]
    assert [hit.doc_id for hit in case.retrieval] == first[:TOP]
    assert len(case.reranked) == TOP
    assert case.retrieval[0].other_place == 12


def test_most_helped_and_most_hurt_come_first_and_unchanged_not_at_all(tmp_path: Path) -> None:
    rows = [row(0, 2, 1), row(1, 12, 1), row(2, 1, 2), row(3, 1, 12), row(4, 3, 3)]
    found = failures(tmp_path, rows, {f"q{n}": {"d01": 1} for n in range(5)})
    assert ids(found.helped) == ["q1", "q0"]
    assert ids(found.hurt) == ["q3", "q2"]


def test_what_retrieval_never_found_is_apart_from_what_the_reranker_pushed_down(tmp_path) -> None:
    rows = [row(0, 1, 11), row(1, 10, 11), row(2, 11, 12), row(3, 1, 10), row(4, 1, 1)]
    qrels = {
        "q0": {"d01": 1, "nowhere": 0},
        "q1": {"d01": 3, "x": 1, "y": 2},
        "q2": {"d01": 1},  # it was not in the top before
        "q3": {"d01": 1},  # it is still in the top
        "q4": {"z": 1},
    }
    found = failures(tmp_path, rows, qrels)
    lost, pushed = found.never_found, found.pushed_down
    assert ids(lost.cases) == ["q4", "q1"], "who found nothing comes first"
    assert (lost.queries, lost.documents, found.found_nothing) == (2, 3, 1)
    assert lost.cases[1].never_found == ("y", "x"), "best grade first"
    assert lost.cases[1].relevant == 3
    assert ids(pushed.cases) == ["q0", "q1"], "who lost most comes first"
    assert (pushed.queries, pushed.documents) == (2, 2)
    assert pushed.cases[0].pushed_down == (Moved("d01", 1, 1, 11),)
    assert pushed.cases[1].pushed_down == (Moved("d01", 3, 10, 11),)


def test_documents_judged_irrelevant_are_no_failure(tmp_path: Path) -> None:
    found = failures(tmp_path, [row(0, 1, 12)], {"q0": {"d01": 0, "x": 0, "y": -2}})
    assert (found.never_found.queries, found.pushed_down.queries, found.found_nothing) == (0, 0, 0)


def test_an_empty_list_found_nothing(tmp_path: Path) -> None:
    found = failures(tmp_path, [result_row(0, [], ["q0"])], {"q0": {"d01": 1}})
    assert (found.never_found.documents, found.found_nothing) == (1, 1)


def test_of_many_queries_the_worst_are_kept_whatever_block_they_come_in() -> None:
    many = 3 * MAX_CASES
    queries = [
        judged_query(
            {**row(n, 1, 11), "query_id": f"q{n:03d}"},
            {"d01": 1, **{f"x{i}": 1 for i in range(n)}},
        )
        for n in range(many)
    ]
    before = dict.fromkeys((query.query_id for query in queries), 1.0)
    after = {query.query_id: (n * 7 % many) / many for n, query in enumerate(queries)}
    one = look_through(queries, before, after)
    blocks = [queries[i : i + 7] for i in range(0, many, 7)]
    parts = [look_through(block, before, after) for block in blocks]
    assert joined(parts, MEASURE) == joined(parts[::-1], MEASURE) == one
    swapped = look_through(queries, after, before)
    assert ids(swapped.helped) == ids(one.hurt)
    worst = sorted(after, key=lambda query: after[query])[:MAX_CASES]
    assert ids(one.hurt) == worst
    assert ids(one.pushed_down.cases) == worst
    assert ids(one.never_found.cases) == [f"q{n:03d}" for n in range(many - 1, 19, -1)]
    assert one.never_found.queries == many - 1
    assert one.never_found.documents == sum(range(many))
    assert one.pushed_down.documents == many
