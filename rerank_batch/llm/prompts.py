"""A prompt as a versioned file of sections.

``[system]`` and ``[user]`` are its two messages, ``[again]`` is what is added to the second where
the first reply could not be used. A file that has been used is never edited: replies are kept under
the hash of its bytes, and a better prompt is a file with the next number. Strangers' texts enter as
JSON strings on one line; see `rerank_batch.rerankers.prompts`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from rerank_batch.rerankers.prompts import sections

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
