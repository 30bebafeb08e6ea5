"""Queries as text: TREC topics and tab-separated lines, and how they are told apart."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import QueriesConfig
from rerank_batch.data.plan import Plan, make_plan
from rerank_batch.errors import InputError

CLASSIC = """
<top>

<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that participate in
international criminal activity.

<narr> Narrative:
A relevant document names the <b>organization</b>.

</top>

<top>
<num> Number: 302
<title> Poliomyelitis and Post-Polio
<desc> Description:
Is the disease of Poliomyelitis (polio) under control?
</top>
"""
CLOSED = """<?xml version="1.0"?>
<topics>
<TOP><NUM>301</NUM><TITLE>International Organized Crime</TITLE> - <DESC>Identify
organizations that participate in international criminal activity.</DESC></TOP>
<top><num>302</num><title> Poliomyelitis and Post-Polio </title><desc>Is the disease of
Poliomyelitis (polio) under control?</desc></top>
</topics>
"""
ONE_LINE = (
    "<top><num> Number: 301 <title> International Organized Crime <desc> Description: Identify "
    "organizations that participate in international criminal activity. </top><top>"
    "<num> Number: 302 <title> Topic: Poliomyelitis and Post-Polio <desc> Is the disease of "
    "Poliomyelitis (polio) under control? </top>"
)
TSV = "301\tInternational Organized Crime\n302\tPoliomyelitis and Post-Polio\n"
TITLES = {"301": "International Organized Crime", "302": "Poliomyelitis and Post-Polio"}
DESCRIPTIONS = {
    "301": "Identify organizations that participate in international criminal activity.",
    "302": "Is the disease of Poliomyelitis (polio) under control?",
}


def plan(path: Path, content: str | bytes, **settings: Any) -> Plan:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return make_plan(QueriesConfig.model_validate({"path": str(path), **settings}))


def queries(made: Plan) -> dict[str, str]:
    rows = made.queries.select(["query_id", "query"]).to_pylist()
    return {row["query_id"]: row["query"] for row in rows}


@pytest.mark.parametrize("format", ["auto", "trec-topics"])
@pytest.mark.parametrize("text", [CLASSIC, CLOSED, ONE_LINE])
def test_topics_with_open_and_with_closed_fields(tmp_path: Path, text: str, format: str) -> None:
    assert queries(plan(tmp_path / "topics.301-302", text, format=format)) == TITLES
    assert queries(plan(tmp_path / "t", text, format=format, text="desc")) == DESCRIPTIONS


def test_a_field_ends_where_the_next_one_begins_and_nowhere_else(tmp_path: Path) -> None:
    made = plan(tmp_path / "topics.txt", CLASSIC, text="narr")
    assert queries(made) == {"301": "A relevant document names the <b>organization</b>."}
    assert made.reject_counts() == {"null_query": 1}


def test_a_field_of_any_name_can_be_the_query(tmp_path: Path) -> None:
    text = "<top><num>C041</num><EN-title>Pesticides</EN-title><EN-desc>Find</EN-desc></top>"
    assert queries(plan(tmp_path / "t", text, text="en-title")) == {"C041": "Pesticides"}


@pytest.mark.parametrize("format", ["auto", "tsv"])
@pytest.mark.parametrize(
    "text",
    [
        TSV,
        TSV.replace("\n", "\r\n"),
        f"\ufeff{TSV}",
        f"\n{TSV}\n \n",
        f"qid\tquery\n{TSV}",
        f"\ufeffQuery_ID\tText\r\n{TSV}",
        gzip.compress(TSV.encode()),
    ],
)
def test_lines_of_id_tab_query(tmp_path: Path, text: str | bytes, format: str) -> None:
    name = "queries.tsv.gz" if isinstance(text, bytes) else "queries.tsv"
    assert queries(plan(tmp_path / name, text, format=format)) == TITLES


def test_a_heading_is_one_in_the_first_line_alone(tmp_path: Path) -> None:
    made = plan(tmp_path / "q.tsv", f"{TSV}id\tquery\nqid\twhat\n")
    assert queries(made) == {**TITLES, "id": "query", "qid": "what"}


def test_beir_jsonl_is_known_by_its_content(tmp_path: Path) -> None:
    assert queries(plan(tmp_path / "q.json", '\n{"_id": "1", "text": "a\\tb"}\n')) == {"1": "a b"}


def test_several_files_are_one_log(tmp_path: Path) -> None:
    first, second = CLASSIC.split("</top>\n", 1)
    (tmp_path / "topics.301").write_text(f"{first}</top>\n")
    assert queries(plan(tmp_path / "topics.302", second)) == {"302": TITLES["302"]}
    both = make_plan(QueriesConfig(path=str(tmp_path / "topics.*")))
    assert queries(both) == TITLES


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("<top><title> a title </top>", {"missing_query_id": 1}),
        ("<top><num> Number: <title> a title </top>", {"missing_query_id": 1}),
        ("<top><num> 1 <desc> a description </top>", {"null_query": 1}),
        ("<top><num> 1 <title> <desc> a description </top>", {"empty_query": 1}),
        (b"<top><num> 1 <title> caf\xe9 </top>", {"invalid_utf8": 1}),
        (b"<top><num> \xe9 <title> caf </top>", {"invalid_query_id": 1}),
        (b"1\tcaf\xe9\n", {"invalid_utf8": 1}),
        ("\ta query\n2\t\n", {"missing_query_id": 1, "empty_query": 1}),
    ],
)
def test_what_cannot_be_used_is_rejected_and_counted(
    tmp_path: Path, text: str | bytes, reasons: dict[str, int]
) -> None:
    raw = text.encode() if isinstance(text, str) else text
    fine = b"9\tfine\n" if b"\t" in raw else b"<top><num> 9 <title> fine </top>"
    made = plan(tmp_path / "q.txt", fine + raw)
    assert queries(made) == {"9": "fine"}
    assert made.reject_counts() == reasons
    assert made.log_rows == 1 + sum(reasons.values())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<top><num> 1 <title> a </top>\n\n<top><num> 2\n<title> b\n", "line 3 has no </top>"),
        ("<top>\n<num> 1 <title> a\n<top>\n</top>", "line 1 has no </top>"),
        ("<top><num> 1 <title> a </top>\n<num> 2 <title> b </top>", "outside of <top> and </top>"),
        ("<top><num> 1\n<num> 2 <title> b </top>", "line 1 has 2 <num>"),
        ("\n<top><num> 1 <title> a <title> b </top>", "line 2 has 2 <title>"),
    ],
)
def test_damaged_topics_are_refused_with_the_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=r"topics\.txt") as error:
        plan(tmp_path / "topics.txt", text)
    assert told in str(error.value)


@pytest.mark.parametrize("line", ["2 no tab", "2\ttwo\ttabs"])
def test_a_damaged_line_is_refused_with_its_number_and_without_its_text(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(InputError, match=rf"q\.tsv line 3 has {line.count(chr(9))} tabs") as error:
        plan(tmp_path / "q.tsv", f"1\tone\n\n{line}\n")
    assert line not in str(error.value)


def test_a_packed_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(TSV.encode() * 500)
    with pytest.raises(InputError, match=r"q\.tsv\.gz is damaged after line"):
        plan(tmp_path / "q.tsv.gz", packed[: len(packed) // 2], format="tsv")


@pytest.mark.parametrize(
    "text", ["301 International Organized Crime\n", "<xml/>\n1\t2\n", "a\tb\tc\n"]
)
def test_a_format_that_cannot_be_told_is_asked_for(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"say what it is with queries\.format"):
        plan(tmp_path / "q.txt", text)


@pytest.mark.parametrize(("format", "text"), [("trec-topics", TSV), ("tsv", CLASSIC)])
def test_a_format_that_was_asked_for_is_insisted_on(tmp_path: Path, format: str, text: str) -> None:
    with pytest.raises(InputError, match=r"holds no TREC topic|line 2 has 0 tabs"):
        plan(tmp_path / "q.txt", text, format=format)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (CLASSIC, {"id": "number"}),
        (TSV, {"id": "qid"}),
        (TSV, {"text": "query"}),
        (TSV, {"filter": [["date", "==", 1]]}),
        (CLASSIC, {"filter": [["date", "==", 1]]}),
    ],
)
def test_a_setting_that_the_format_has_no_use_for_is_refused(
    tmp_path: Path, text: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"leave out|filter works on Parquet"):
        plan(tmp_path / "q.txt", text, **settings)
