"""Tables for pull requests: the numbers, on lines that GitHub reads as a table, and no markup of
strangers."""

import re

import pyarrow as pa
import pytest

from rerank_batch.evaluation.acceptance import Check
from rerank_batch.evaluation.depth.study import DepthRow, DepthStudy
from rerank_batch.evaluation.report.markdown import escape, markdown
from rerank_batch.remarks import NotKnown

HEADLINE = [["measure", "retrieval", "p"], ["nDCG@10", "0.7257", "<0.001"]]
STUDY = DepthStudy(
    "nDCG@10",
    (
        DepthRow(0, {"nDCG@10": 0.7257}, 0.0, 0),
        DepthRow(30, {"nDCG@10": 0.777}, 0.9, 5940),
        DepthRow(50, {"nDCG@10": 0.7779}, 0.9394, 9900),
    ),
    pa.table({}),
)


def test_numbers_stand_in_tables() -> None:
    text = markdown("nightly-0007", 1198, HEADLINE, STUDY)
    for line in (
        "**Run nightly-0007**, 1,198 judged queries",
        "| measure | retrieval | p |",
        "| --- | ---: | ---: |",
        "| nDCG@10 | 0.7257 | \\<0.001 |",
        "| 0 | 0.7257 | – | 0 | 0% |  |",
        "| 30 | 0.7770 | 0.9000 | 5,940 | 60% | knee |",
        "| 50 | 0.7779 | 0.9394 | 9,900 | 100% |  |",
        "Beyond 30 candidates nDCG@10 rises by less than 0.002 and cost by 67 %.",
    ):
        assert line in text.splitlines()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
        assert set(table[1]) <= set("|- :")


def test_without_depths_it_says_why_and_checks_are_listed() -> None:
    checks = [Check("RR > 0.5", True, "RR is 0.6"), Check("RR > 0.7", False, "RR is 0.6")]
    text = markdown("r", 1, HEADLINE, NotKnown("it had no reranker"), checks)
    assert "No table of depths: it had no reranker." in text
    assert "- **passed**: RR \\> 0.5 (RR is 0.6)\n- **failed**: RR \\> 0.7 (RR is 0.6)" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("a\nb\r\n\tc", "a b c"),
        ("<script>", "\\<script\\>"),
        ("[x](http://y)", "\\[x\\](http://y)"),
        ("![x](y)", "!\\[x\\](y)"),
        ("*a* _b_ `c` ~d~", "\\*a\\* \\_b\\_ \\`c\\` \\~d\\~"),
        ("&lt; $x$", "\\&lt; \\$x\\$"),
        ("@someone #12", "@\N{ZERO WIDTH NON-JOINER}someone #\N{ZERO WIDTH NON-JOINER}12"),
        ("nDCG@10", "nDCG@10"),
    ],
)
def test_text_stays_text(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_every_text_is_escaped() -> None:
    hostile = "|<b>"
    study = DepthStudy(hostile, (DepthRow(0, {hostile: 0.5}, 0.0, 0),
                                 DepthRow(5, {hostile: 0.6}, 0.1, 9)), pa.table({}))  # fmt: skip
    checks = [Check(hostile, True, hostile)]
    for depth in (study, NotKnown(hostile)):
        text = markdown(hostile, 1, [[hostile], [hostile]], depth, checks)
        assert "\\|\\<b\\>" in text
        assert "<b>" not in text.replace("\\<b\\>", "")
        assert hostile not in text.replace("\\|\\<b\\>", "")
