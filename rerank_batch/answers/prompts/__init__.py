"""The two prompts of the answer check: a versioned file each, and how texts enter them.

``answer`` asks for an answer from documents, ``judge`` for its grade against reference answers, by
the rubric that stands in it. Sections and rules are those of `rerank_batch.rerankers.prompts`: a
file that has been used is never edited, a better one has the next number, and texts enter as JSON
strings on one line, which none of them can leave.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Literal

from rerank_batch.rerankers.prompts import quote, sections

Name = Literal["answer", "judge"]

FOLDER = Path(__file__).parent
FILES: dict[Name, str] = {"answer": "answer_v1.txt", "judge": "judge_v1.txt"}

HIGHEST = 3
"""The best grade of the rubric; the least is 0."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """The sections of one of the two."""

    system: str
    user: str
    again: str

    def messages(self, words: dict[str, str], again: bool) -> Messages:
        """The prompt as chat messages; the words are quoted already."""
        user = f"{self.user}\n\n{self.again}" if again else self.user
        # One substitution of all words: a text that reads $question stays as it is.
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": Template(user).substitute(words)},
        ]


@cache
def load(name: Name) -> Prompt:
    """One of the two."""
    return Prompt(**sections(FOLDER / FILES[name]))


def answer_words(question: str, documents: Sequence[str]) -> dict[str, str]:
    """What enters the prompt for an answer; documents are numbered from 1."""
    numbered = ", ".join(
        f'{{"number": {number}, "text": {quote(text)}}}' for number, text in enumerate(documents, 1)
    )
    return {"question": quote(question), "documents": f"[{numbered}]"}


def judge_words(question: str, references: Sequence[str], answer: str) -> dict[str, str]:
    """What enters the prompt for a grade."""
    return {
        "question": quote(question),
        "references": f"[{', '.join(map(quote, references))}]",
        "answer": quote(answer),
    }


def version(name: Name) -> str:
    """The prompt's file and the first digits of its sha256, for reports and keys."""
    return f"{FILES[name]} {hashlib.sha256((FOLDER / FILES[name]).read_bytes()).hexdigest()[:12]}"
