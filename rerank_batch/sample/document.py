"""What the harvest hands to the query log: a documented object, and when it can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_WORDS = 3
LONGEST_QUERY = 400


@dataclass(frozen=True)
class Document:
    """A documented object: its canonical dotted name and its docstring in two parts."""

    doc_id: str
    kind: str
    paragraph: str
    text: str


def can_be_query(paragraph: str) -> bool:
    """A first paragraph that somebody might type: some words, not an essay, not markup."""
    words = len(paragraph.split())
    markup = paragraph.startswith(("..", ">>>", ":", "|", "+-"))
    return words >= FEWEST_WORDS and len(paragraph) <= LONGEST_QUERY and not markup
