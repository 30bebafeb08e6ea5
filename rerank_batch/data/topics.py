"""Queries as text: TREC topics, and lines of an id, a tab and the query.

Knows bytes and where an id and a query are in them; whether they can be used is the plan's to say.
"""

import re
from collections.abc import Iterator, Sequence

from rerank_batch.data.lines import read_lines
from rerank_batch.data.xml_topics import XML_TOPIC, TextQuery, read_xml
from rerank_batch.errors import InputError
from rerank_batch.storage import InputFile

_TOP = re.compile(rb"(?i)<top>")
_END = re.compile(rb"(?i)</top>")
# Classic topics close no field: one ends where the next of these begins.
_FIELDS = ("num", "title", "desc", "narr", "dom", "smry", "con", "fac", "def", "head")
_LABELS = {"num": "Number:", "title": "Topic:", "desc": "Description:", "narr": "Narrative:"}
_HEADINGS = (
    {b"id", b"_id", b"qid", b"query_id", b"query-id", b"topic_id", b"topic"},
    {b"query", b"text", b"title", b"question"},
)


def read_topics(file: InputFile, named: str | None) -> Iterator[TextQuery]:
    """TREC topics: the number of each and the text of one of its fields, by default the title.

    Topics as XML, ``<topic number="1"><query>``, are read as well; see `xml_topics`.

    The words that classic topics begin a field with (Number:, Topic:, Description:, Narrative:) are
    not part of it. A topic that lacks its number or the field has None there.

    Raises:
        InputError: no topic at all, one that is not closed, or one with a field twice; the message
            names the line.
    """
    text = b"\n".join(line for _, line in read_lines(file, "queries"))
    field = named or "title"
    before, *topics = _TOP.split(text)
    if not topics and XML_TOPIC.search(text):
        yield from read_xml(text, named, str(file))
        return
    if not topics:
        raise InputError(f"queries: {file} holds no TREC topic: there is no <top> in it")
    line = 1 + before.count(b"\n")
    outside = before
    for topic in topics:
        where = f"{file}: the topic that begins in line {line}"
        inside, *after = _END.split(topic)
        if not after:
            raise InputError(f"queries: {where} has no </top>")
        outside += b"".join(after)
        yield _field(inside, "num", field, where), _field(inside, field, field, where)
        line += topic.count(b"\n")
    if re.search(rb"(?i)<num>", outside):
        raise InputError(f"queries: {file} has a <num> that stands outside of <top> and </top>")


def _field(topic: bytes, name: str, wanted: str, where: str) -> bytes | None:
    """The text of a field; fields may be closed or not."""
    names = "|".join(map(re.escape, {*_FIELDS, wanted}))
    _, *parts = re.split(rf"(?i)<({names})>".encode(), topic)
    found = [
        text
        for key, text in zip(parts[::2], parts[1::2], strict=True)
        if key.lower() == name.lower().encode()
    ]
    if len(found) > 1:
        raise InputError(f"queries: {where} has {len(found)} <{name}>")
    if not found:
        return None
    text = re.split(rf"(?i)</{re.escape(name)}>".encode(), found[0])[0]
    label = re.escape(_LABELS.get(name.lower(), ""))
    return re.sub(rf"(?i)^\s*{label}".encode(), b"", text).strip()


def read_tsv(file: InputFile) -> Iterator[TextQuery]:
    """Lines of an id, a tab and a query; a first line that names the columns says which is which.

    Raises:
        InputError: a line of another shape, with its number.
    """
    width, places = 2, (0, 1)
    lines = ((number, line) for number, line in read_lines(file, "queries") if line.strip())
    for count, (number, line) in enumerate(lines):
        fields = [field.strip() for field in line.split(b"\t")]
        if count == 0 and (named := _places(fields)):
            width, places = len(fields), named
            continue
        if len(fields) != width and width > 2:
            raise InputError(
                f"queries: {file} line {number} has {len(fields)} fields, the heading {width}"
            )
        if len(fields) != width:
            raise InputError(
                f"queries: {file} line {number} has {len(fields) - 1} tabs, not one between an id "
                "and a query"
            )
        yield fields[places[0]], fields[places[1]]


def _places(fields: Sequence[bytes]) -> tuple[int, int] | None:
    """Where the id and the text stand by a heading; None where it is none."""
    names = [field.lower() for field in fields]
    ids, texts = ([n for n, name in enumerate(names) if name in known] for known in _HEADINGS)
    return (ids[0], texts[0]) if ids and texts else None


def detect_format(file: InputFile) -> str:
    """``trec-topics``, ``tsv`` or ``beir``, by the beginning of its first line that is not blank.

    Raises:
        InputError: it is none of them.
    """
    lines = (line for _, line in read_lines(file, "queries") if line.strip())
    first = next(lines, b"{").lstrip(b" ")
    if first.startswith(b"{"):
        return "beir"
    if first.startswith(b"<"):
        if any(_TOP.search(line) or XML_TOPIC.search(line) for line in (first, *lines)):
            return "trec-topics"
    elif first.count(b"\t") == 1 or (b"\t" in first and _places(first.split(b"\t"))):
        return "tsv"
    raise InputError(
        f"queries: {file} is neither BEIR jsonl nor TREC topics nor lines of id, tab, query; say "
        "what it is with queries.format"
    )
