"""The facts that tables of several commands have."""

from jobs.tables.facts import remark_lines


def test_remarks_are_one_line_each() -> None:
    objects = [
        {"section": "corpus", "kind": "some_kind", "count": 2, "text": "one"},
        {"section": "qrels", "kind": "some_kind", "count": 1, "text": "other"},
    ]
    assert remark_lines({"remarks": objects}) == {"remarks": "corpus: one\nqrels: other"}
    assert remark_lines({"remarks": []}) == {}
    assert remark_lines({}) == {}, "a run of an earlier version has none"
