"""Outcomes from outside: any numbers in long form, and every row that says nothing is counted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import OutcomesConfig
from rerank_batch.data.outcomes import (
    OUTCOMES,
    Outcomes,
    add_outcomes,
    outcome_remarks,
    read_outcomes,
    refuse_repeated_outcome,
)
from rerank_batch.errors import InputError
from tests.support.helpers import broken_strings, write_parquet


def rows(*values: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(OUTCOMES.names, each, strict=True)) for each in values]


def read(path: Path, **settings: Any) -> Outcomes:
    return read_outcomes(OutcomesConfig(path=str(path), **settings))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([True, False], [1, 0]), ([3, 0], [3, 0]), ([0.5, -2.0], [0.5, -2.0])],
)
def test_values_are_numbers_or_true_and_false(tmp_path, values, expected):
    file = write_parquet(
        tmp_path / "o.parquet", rows(*(("q1", "reranked", "thumb", value) for value in values))
    )
    found = read(file)
    assert found.table.schema == OUTCOMES
    assert found.table.column("value").to_pylist() == expected
    assert (found.rows, found.dropped) == (2, {})


def test_columns_may_have_other_names_and_rows_can_be_filtered(tmp_path):
    file = write_parquet(
        tmp_path / "o.parquet",
        [
            {"query": 7, "arm": "a", "what": "thumb", "score": 1, "day": 1},
            {"query": 8, "arm": "a", "what": "thumb", "score": 0, "day": 2},
        ],
    )
    named = {"query_id": "query", "system": "arm", "outcome": "what", "value": "score"}
    assert read(file, **named, filter=[["day", "==", 2]]).table.to_pylist() == rows(
        ("8", "a", "thumb", 0.0)
    )
    with pytest.raises(InputError, match=r"no column 'system'; it has query, arm, what, score"):
        read(file, **{**named, "system": "system"})


def test_every_row_that_says_nothing_is_counted_under_one_reason(tmp_path):
    table = pa.table(
        [
            broken_strings([b"q1", None, b"", b"\xff", b"q2", b"q3", b"q4", None]),
            pa.array(["s", "s", "s", "s", None, "s", "s", "s"]),
            pa.array(["thumb"] * 8),
            pa.array([1.0, 1.0, 1.0, 1.0, 1.0, float("nan"), None, None]),
        ],
        names=OUTCOMES.names,
    )
    pq.write_table(table, tmp_path / "o.parquet")
    found = read(tmp_path / "o.parquet")
    assert found.table.to_pylist() == rows(("q1", "s", "thumb", 1.0))
    assert found.dropped == {"missing_name": 5, "missing_value": 1, "not_finite": 1}
    assert found.rows == found.table.num_rows + sum(found.dropped.values())


def test_what_cannot_be_meant_is_refused(tmp_path):
    file = write_parquet(tmp_path / "words.parquet", rows(("q1", "s", "thumb", "up")))
    with pytest.raises(InputError, match=r"column 'value' of .* holds string, no numbers"):
        read(file)
    file = write_parquet(tmp_path / "null.parquet", rows(("q1", "s", "thumb", None)))
    with pytest.raises(InputError, match=r"no row of .* \(missing_value: 1\)"):
        read(file)
    file = write_parquet(tmp_path / "good.parquet", rows(("q1", "s", "thumb", 1)))
    with pytest.raises(InputError, match=r"names 'seconds'; the outcomes of .* are 'thumb'"):
        read(file, less_is_better=["seconds"])
    assert read(file, less_is_better=["thumb"]).rows == 1


def test_outcomes_of_our_own_come_to_those_from_outside(tmp_path):
    outside = read(
        write_parquet(tmp_path / "o.parquet", rows(("q1", "s", "thumb", 1), ("q2", "s", "b", None)))
    )
    own = pa.Table.from_pylist(rows(("q1", "s", "answer_grade", 3.0)), schema=OUTCOMES)
    both = add_outcomes(outside, own)
    assert both.table.column("outcome").to_pylist() == ["thumb", "answer_grade"]
    assert (both.rows, both.dropped) == (3, {"missing_value": 1})
    assert add_outcomes(None, own) == Outcomes(1, own, {})
    refuse_repeated_outcome(outside, "answer_grade", "answer_check")
    with pytest.raises(InputError, match="'thumb' is what answer_check calls its own"):
        refuse_repeated_outcome(outside, "thumb", "answer_check")


def test_outcomes_of_other_queries_are_told() -> None:
    rows = [["q1", "Q2", "Q3"], ["s"] * 3, ["o"] * 3, [1.0] * 3]
    table = pa.table([pa.array(column) for column in rows], schema=OUTCOMES)
    (remark,) = outcome_remarks(Outcomes(3, table, {}), {"q1", "q2", "q3"})
    assert (remark.section, remark.count) == ("outcomes", 2)
    assert "'Q2' is 'q2'" in remark.text
    assert outcome_remarks(None, set()) == []
