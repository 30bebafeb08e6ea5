"""Remarks: ids of which most match nothing, and how a summary shows them."""

from collections.abc import Sequence

import pytest

from rerank_batch.remarks import (
    IDS_MATCH_NOTHING,
    Remark,
    read_remarks,
    remark_objects,
    unmatched,
)


def found(ids: Sequence[str], known: set[str]) -> Remark | None:
    return unmatched("qrels", "judged documents", ids, known.intersection, "the corpus")


def test_half_of_the_ids_may_be_missing() -> None:
    assert found([], {"a"}) is None
    assert found(["a", "b"], {"a"}) is None
    remark = found(["a", "b", "c"], {"a"})
    assert remark is not None
    assert (remark.section, remark.kind, remark.count) == ("qrels", IDS_MATCH_NOTHING, 2)
    assert str(remark) == (
        "qrels: 2 of 3 judged documents are not in the corpus, such as 'b', 'c'. Do the ids have "
        "another form there?"
    )


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("D001", "d001"),
        ("d001", "D001"),
        ("007", "7"),
        ("7", "007"),
        ("7.0", "7"),
        ("7", "7.0"),
        ("doc:7", "7"),
        ("https://x.org/doc/7", "7"),
        ("D007", "7"),
        (" d1 ", "d1"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_another_form_of_an_id_is_pointed_out(listed: str, there: str) -> None:
    remark = found(["nowhere", listed], {there})
    assert remark is not None
    assert f"have another form there: {listed!r} is {there!r}" in remark.text


def test_a_summary_has_each_remark_once_as_an_object_and_a_line() -> None:
    one, other = Remark("corpus", "some_kind", 2, "one"), Remark("qrels", "some_kind", 1, "other")
    objects = remark_objects([one, one, other])
    assert objects == [
        {"section": "corpus", "kind": "some_kind", "count": 2, "text": "one"},
        {"section": "qrels", "kind": "some_kind", "count": 1, "text": "other"},
    ]
    assert read_remarks(objects) == (one, other)
