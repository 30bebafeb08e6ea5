"""The prompts of the LLM reranker: a versioned file for each method, and how texts enter it.

A file has sections: ``[criterion]``, what a good document is unless the configuration says
otherwise; ``[system]`` and ``[user]``, the two messages; ``[again]``, what is added to the second
where the first answer could not be used. A file that has been used is never edited: scores are
kept under the hash of its bytes, and a better prompt is a file with the next number.

Queries and documents enter as `rerank_batch.llm.prompts.quote` writes them. Knows no service and no
answer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank_batch.config import LlmMethod
from rerank_batch.llm.prompts import Messages, Prompt, quote, sections

FOLDER = Path(__file__).parent
FILES: dict[LlmMethod, str] = {
    "yes-no": "yes_no_v1.txt",
    "grade": "grade_v1.txt",
    "listwise": "listwise_v1.txt",
}


@dataclass(frozen=True)
class RerankPrompt(Prompt):
    """The sections of a file, with the criterion."""

    criterion: str

    def for_documents(
        self, query: str, documents: Sequence[str], criterion: str | None, again: bool
    ) -> Messages:
        """The prompt with these texts in it; documents are numbered from 1."""
        quoted = [quote(document) for document in documents]
        numbered = ", ".join(
            f'{{"number": {number}, "text": {text}}}' for number, text in enumerate(quoted, 1)
        )
        words = {
            "criterion": criterion or self.criterion,
            "count": str(len(documents)),
            "query": quote(query),
            "document": quoted[0],
            "documents": f"[{numbered}]",
        }
        return self.messages(words, again)


def load(method: LlmMethod) -> RerankPrompt:
    """The prompt of a method."""
    return RerankPrompt(**sections(FOLDER / FILES[method]))


def fingerprint(method: LlmMethod) -> str:
    """sha256 of the prompt's file, as hex."""
    return hashlib.sha256((FOLDER / FILES[method]).read_bytes()).hexdigest()
