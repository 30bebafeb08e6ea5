"""Topics as XML: ``<topic number="1"><query>…</query><question>…</question></topic>``.

So the tracks of TREC have written them since 2009. Knows bytes of XML; not files, nor what a query
is used for.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from rerank_batch.errors import InputError

TextQuery = tuple[bytes | None, bytes | None]
"""The id and the text of a query; None where there is none."""

XML_TOPIC = re.compile(rb"(?i)<([\w.-]+:)?topic[\s>]")

FIELDS = ("query", "title")
"""The fields that a query is read from where none is named, the first that a topic has."""

_NUMBERS = ("number", "num", "id", "qid")
_PROLOG = re.compile(rb"(?is)^\s*(<\?xml.*?\?>)?\s*(<!doctype[^>\[]*(\[.*?\])?\s*>)?")


def read_xml(text: bytes, field: str | None, where: str) -> Iterator[TextQuery]:
    """The number of each topic and the text of one of its fields; without a field, its whole text.

    The number is an attribute or a field: number, num, id or qid.

    Raises:
        InputError: it is no XML, a topic has a field twice, or none has the field that is asked
            for; the message names what there is.
    """
    topics = [each for each in _parsed(text, where).iter() if _name(each) == "topic"]
    found = [(_number(topic), _text(topic, field, where)) for topic in topics]
    if all(query is None for _, query in found):
        fields = sorted({_name(child) for topic in topics for child in topic})
        raise InputError(
            f"queries: no topic of {where} has <{field or '> or <'.join(FIELDS)}>; they have "
            f"{', '.join(fields) or 'no fields'}. Name one with queries.text"
        )
    for number, query in found:
        yield _bytes(number), _bytes(query)


def _parsed(text: bytes, where: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        first = error
    try:  # topics one after the other, without anything around them
        prolog = _PROLOG.match(text)
        begin = prolog.end() if prolog else 0
        return ElementTree.fromstring(text[:begin] + b"<topics>" + text[begin:] + b"</topics>")
    except ElementTree.ParseError:
        line, _ = first.position
        raise InputError(
            f"queries: {where} line {line} is no XML: {first}. An & in a text is written &amp;"
        ) from None


def _number(topic: ElementTree.Element) -> str | None:
    attributes = {name.lower(): value for name, value in topic.attrib.items()}
    fields = {_name(child): _inside(child) for child in topic}
    for names in (attributes, fields):
        for name in _NUMBERS:
            if name in names:
                return names[name].strip()
    return None


def _text(topic: ElementTree.Element, field: str | None, where: str) -> str | None:
    fields: dict[str, str] = {}
    for child in topic:
        name = _name(child)
        if name in fields and name == (field or name).lower() and name in (field, *FIELDS):
            raise InputError(f"queries: {where}: topic {_number(topic)} has more than one <{name}>")
        fields.setdefault(name, _inside(child))
    if not set(fields) - set(_NUMBERS) and field is None:
        # The number, where it is a field, is no part of the text.
        return "".join([topic.text or "", *(child.tail or "" for child in topic)])
    wanted = (field.lower(),) if field else FIELDS
    return next((fields[name] for name in wanted if name in fields), None)


def _name(element: ElementTree.Element) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2].lower()


def _inside(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.strip().encode()
