"""What of a service's refusal may be repeated: its own words, never those of the request.

Queries are personal data, and services like to quote what they refuse.
"""

import json
from collections.abc import Iterable
from typing import Any

MOST_CHARACTERS = 200
_TELLING = 16
"""So many characters in a row of a text that was sent are a quotation of it."""


def public_message(raw: bytes, private: Iterable[str]) -> str:
    """The message in the body of an error; empty if there is none or it quotes ``private``."""
    try:
        message = _message(json.loads(raw))
    except (ValueError, RecursionError):
        return ""
    plain = "".join(c if c.isprintable() else " " for c in message)
    shown = " ".join(plain.split())[: MOST_CHARACTERS + _TELLING]
    return "" if any(_quotes(shown, text) for text in private) else shown[:MOST_CHARACTERS]


def _message(body: Any) -> str:
    """What stands at message, detail or error, however services nest them."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return _message(body[0]) if body else ""
    if isinstance(body, dict):
        messages = (
            _message(body[key]) for key in ("message", "detail", "error", "msg") if key in body
        )
        return next(filter(None, messages), "")
    return ""


def _quotes(message: str, text: str) -> bool:
    """Whether the text stands in the message: all of a short one, or a run of a longer one."""
    spoken = _bare(message)
    for form in (text,) if text.isascii() else (text, json.dumps(text)):
        bare = _bare(form)
        if len(bare) <= _TELLING:
            if bare and bare in spoken:
                return True
        elif any(spoken[i : i + _TELLING] in bare for i in range(len(spoken) - _TELLING + 1)):
            return True
    return False


def _bare(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
