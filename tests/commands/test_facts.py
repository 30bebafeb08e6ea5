"""The facts that tables of several commands have."""

from jobs.tables.facts import remark_lines
from rerank_batch.remarks import read_remarks


def test_remarks_are_one_line_each() -> None:
    objects = [
        {"section": "corpus", "kind": "some_kind", "count": 2, "text": "one"},
        {"section": "qrels", "kind": "some_kind", "count": 1, "text": "other"},
    ]
    assert remark_lines(read_remarks(objects)) == {"remarks": "corpus: one\nqrels: other"}
    assert remark_lines([]) == {}
