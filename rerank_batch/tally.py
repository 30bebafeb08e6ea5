"""Counts and sums that a process notes beside its results, for the commit of its block.

For things that are neither results nor errors: a batch that worked on the second try, pairs that
were known already, files that were written along the way.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank_batch.schema import JsonObject


@dataclass(frozen=True)
class Noted:
    """What was noted since the last time; JSON values only.

    ``counts`` says how often something happened, ``sums`` how much of something there was,
    ``scores`` which files of new scores were published.
    """

    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    scores: list[JsonObject] = field(default_factory=list)


TOKENS = "tokens"
"""A sum of the run: how many tokens its models here have read."""

PADDED = "padding_tokens"
"""A sum of the run: how much padding they read beside the tokens."""

SPENT = "spent"
"""With a dot and the number of a stage, a sum of the run: the money that its service billed."""

CPU_SECONDS = "cpu_seconds"
"""With a dot and the name of a stage, a sum of the run: how long cores worked for that stage."""

_counts: Counter[str] = Counter()
_sums: dict[str, float] = {}
_scores: list[JsonObject] = []


def count(what: str) -> None:
    """Note that something happened once more; the run's summary tells how often."""
    _counts[what] += 1


def add(name: str, amount: float) -> None:
    """Add to a sum of the run."""
    _sums[name] = _sums.get(name, 0.0) + amount


def published_scores(file: Mapping[str, Any]) -> None:
    """Note a file of new scores, which counts once the block is committed."""
    _scores.append(dict(file))


def drain() -> Noted:
    """Everything noted since the last time."""
    noted = Noted(dict(_counts), dict(_sums), list(_scores))
    _counts.clear()
    _sums.clear()
    _scores.clear()
    return noted
