"""The prompts of the LLM reranker: a versioned file for each method, and how texts enter it.

A file has sections: ``[criterion]``, what a good document is unless the configuration says
otherwise; ``[system]`` and ``[user]``, the two messages; ``[again]``, what is added to the second
where the first answer could not be used. A file that has been used is never edited: scores are
kept under the hash of its bytes, and a better prompt is a file with the next number.

Queries and documents enter as JSON strings on one line, so that no text can end its string, begin a
line or write a marker that the model's chat template knows. Knows no service and no answer.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from rerank_batch.config import LlmMethod

FOLDER = Path(__file__).parent
FILES: dict[LlmMethod, str] = {
    "yes-no": "yes_no_v1.txt",
    "grade": "grade_v1.txt",
    "listwise": "listwise_v1.txt",
}


@dataclass(frozen=True)
class Prompt:
    """The sections of one file."""

    criterion: str
    system: str
    user: str
    again: str

    def messages(
        self, query: str, documents: Sequence[str], criterion: str | None, again: bool
    ) -> list[dict[str, str]]:
        """The prompt with these texts in it, as chat messages; documents are numbered from 1."""
        quoted = [quote(document) for document in documents]
        numbered = ", ".join(
            f'{{"number": {number}, "text": {text}}}' for number, text in enumerate(quoted, 1)
        )
        words = {
            "criterion": criterion or self.criterion,
            "count": len(documents),
            "query": quote(query),
            "document": quoted[0],
            "documents": f"[{numbered}]",
        }
        user = f"{self.user}\n\n{self.again}" if again else self.user
        # One substitution of all words: a text that reads $query stays as it is.
        return [
            {"role": "system", "content": Template(self.system).substitute(words)},
            {"role": "user", "content": Template(user).substitute(words)},
        ]


def load(method: LlmMethod) -> Prompt:
    """The prompt of a method."""
    return Prompt(**sections(FOLDER / FILES[method]))


def sections(file: Path) -> dict[str, str]:
    """The sections of a prompt's file by their names."""
    text = file.read_text(encoding="utf-8")
    _, *parts = re.split(r"^\[(\w+)\]\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def fingerprint(method: LlmMethod) -> str:
    """sha256 of the prompt's file, as hex."""
    return hashlib.sha256((FOLDER / FILES[method]).read_bytes()).hexdigest()


# Beside what JSON escapes anyway: "<" and "[INST]", with which chat templates begin their markers,
# and characters that are not seen or turn the order of what is seen.
_ESCAPED = re.compile(
    r"<|\[(?=/?[A-Z_]+\])|[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def quote(text: str) -> str:
    """A JSON string that holds the text, without line ends and without what could pass for more."""
    return _ESCAPED.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(rf"\u{units[i : i + 4]}" for i in range(0, len(units), 4))
