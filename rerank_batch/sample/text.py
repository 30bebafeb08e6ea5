"""How two strings of the sample are compared: shared by the harvest and by the query log.

Kept apart so that the harvest, which runs in a process of its own, needs nothing else.
"""

from __future__ import annotations

import re
import unicodedata

_NOT_A_WORD = re.compile(r"\W+")


def collapse(text: str) -> str:
    """One line, single spaces, no blanks at the ends."""
    return " ".join(text.split())


def normalise(text: str) -> str:
    """What is left when compatibility characters, case and spacing do not count."""
    return collapse(unicodedata.normalize("NFKC", text).casefold())


def bare_words(text: str) -> str:
    """`normalise` without punctuation: "Fit the model." and "Fit the model" are one text."""
    return _NOT_A_WORD.sub(" ", normalise(text)).strip()
