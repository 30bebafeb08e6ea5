"""A prompt as a versioned file of sections.

``[system]`` and ``[user]`` are its two messages, ``[again]`` is what is added to the second where
the first reply could not be used. A file that has been used is never edited: replies are kept under
the hash of its bytes, and a better prompt is a file with the next number.

Strangers' texts enter as JSON strings on one line, so that no text can end its string, begin a line
or write a marker that the model's chat template knows.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """The sections of a file."""

    system: str
    user: str
    again: str

    def messages(self, words: Mapping[str, str], again: bool) -> Messages:
        """The prompt as chat messages; the words are quoted already."""
        user = f"{self.user}\n\n{self.again}" if again else self.user
        # One substitution of all words: a text that reads $question stays as it is.
        return [
            {"role": "system", "content": Template(self.system).substitute(words)},
            {"role": "user", "content": Template(user).substitute(words)},
        ]


@cache
def load(file: Path) -> Prompt:
    """The prompt of a file."""
    return Prompt(**sections(file))


def version(file: Path) -> str:
    """The prompt's file and the first digits of its sha256, for reports and keys."""
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def sections(file: Path) -> dict[str, str]:
    """The sections of a prompt's file by their names."""
    text = file.read_text(encoding="utf-8")
    _, *parts = re.split(r"^\[(\w+)\]\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


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
