"""The two prompts of the answer check: a versioned file each, and how texts enter them.

``answer`` asks for an answer from documents, ``judge`` for its grade against reference answers, by
the rubric that stands in it. Texts enter as JSON strings on one line, which none of them can leave.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rerank_batch.llm import prompts
from rerank_batch.llm.prompts import quote

Name = Literal["answer", "judge"]

FOLDER = Path(__file__).parent
FILES: dict[Name, str] = {"answer": "answer_v1.txt", "judge": "judge_v1.txt"}


def load(name: Name) -> prompts.Prompt:
    """One of the two."""
    return prompts.load(FOLDER / FILES[name])


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
    """See `rerank_batch.llm.prompts.version`."""
    return prompts.version(FOLDER / FILES[name])
