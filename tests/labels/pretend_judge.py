"""A pretend LLM whose grades a test knows, for either of the two prompts of the judge."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.services.llm_server import PretendLlm, Tokens

Grade = Callable[[str, str], int]
"""Of a query and a document, by their texts."""


def by_hash(query: str, document: str) -> int:
    """Some grade from 0 to 3, always the same."""
    return zlib.crc32(f"{query}\0{document}".encode()) % 4


@dataclass
class PretendJudge(PretendLlm):
    """Writes ``first`` or ``second`` of the pair, as the prompt asks; see `PretendLlm`."""

    first: Grade = by_hash
    second: Grade = by_hash

    def _judgement(self, system: str, line: str) -> Tokens:
        data = json.loads(line)
        grade = self.second if is_second(system) else self.first
        told = str(grade(data["query"], data["document"]))
        return [(told, {told: 1.0})]


def is_second(system: str) -> bool:
    return "second of two assessors" in system


def pair_of(body: Any) -> tuple[bool, str, str]:
    """Whether it is a second opinion, and the texts of the pair."""
    system, user = (message["content"] for message in body["messages"])
    data = json.loads(user.split("\n")[0])
    return is_second(system), data["query"], data["document"]
