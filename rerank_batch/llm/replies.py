"""What an LLM answered, read strictly: a score, a grade, or an order of all documents.

An answer that is not exactly in the form the prompt asks for is `NotInForm`, however easily one
could guess what it means: what could be guessed could also be planted by a document. Knows nothing
of prompts and tries.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from rerank_batch.services.client import Malformed
from rerank_batch.services.usage import Usage, count_at


class NotInForm(Exception):
    """The answer is not in the form that was asked for."""


@dataclass(frozen=True)
class WrittenToken:
    """A token that was written, and what could have stood there with its log-probability."""

    token: str
    top: list[tuple[str, float]]

    def logprob(self, word: str) -> float:
        """Of a word in all its ways to be written; -inf where none of them is listed."""
        logprobs = [logprob for token, logprob in self.top if token.strip().casefold() == word]
        highest = max(logprobs, default=-math.inf)
        return highest + math.log(sum(math.exp(logprob - highest) for logprob in logprobs) or 1)


@dataclass(frozen=True)
class Reply:
    """A model's text, and its tokens where the service gives their log-probabilities."""

    text: str
    tokens: list[WrittenToken]


def read_completion(response: Any, expected: Usage) -> tuple[Any, Usage]:
    """The first choice of a chat completion, for `read_reply`, and what was billed for it.

    A service that sends no bill is taken to have charged what was expected.

    Raises:
        Malformed: this is no chat completion.
    """
    if not isinstance(response, dict) or not isinstance(response.get("choices"), list):
        raise Malformed("an answer that is no chat completion")
    read = count_at(response, "usage", "prompt_tokens")
    written = count_at(response, "usage", "completion_tokens")
    billed = read is not None and written is not None
    used = Usage(tokens=read or 0, output_tokens=written or 0) if billed else expected
    return next(iter(response["choices"]), None), used


def read_reply(choice: Any) -> Reply:
    """One of the ``choices`` of a chat completion.

    Raises:
        NotInForm: there is no text, as with a refusal, or the log-probabilities make no sense.
    """
    try:
        text = choice["message"]["content"]
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = [WrittenToken(str(at["token"]), _top(at)) for at in listed]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise NotInForm from None
    listed_all = (logprob for token in tokens for _, logprob in token.top)
    if not isinstance(text, str) or not all(map(math.isfinite, listed_all)):
        raise NotInForm
    return Reply(text, tokens)


def _top(at: Any) -> list[tuple[str, float]]:
    return [(str(top["token"]), float(top["logprob"])) for top in at["top_logprobs"]]


def yes_over_no(reply: Reply) -> float:
    """log p(yes) - log p(no) at the first place, the ways to write each taken together.

    A side that is not listed there is taken to be as likely as the least likely token that is:
    more it cannot be.

    Raises:
        NotInForm: neither is listed.
    """
    if not reply.tokens:
        raise NotInForm
    first = reply.tokens[0]
    yes, no = first.logprob("yes"), first.logprob("no")
    if max(yes, no) == -math.inf:
        raise NotInForm
    least = min(logprob for _, logprob in first.top)
    return max(yes, least) - max(no, least)


_DIGIT = re.compile(r"\s*([0-3])\s*\Z")


def grade(reply: Reply) -> float:
    """The mean of the grades 0 to 3 under the model's probabilities, else the grade it wrote.

    Raises:
        NotInForm: the text is not one digit from 0 to 3.
    """
    written = _DIGIT.match(reply.text)
    if not written:
        raise NotInForm
    for token in reply.tokens:
        if token.token.strip() == written[1]:
            logprobs = [token.logprob(str(digit)) for digit in range(4)]
            highest = max(logprobs)
            if highest > -math.inf:
                weights = [math.exp(logprob - highest) for logprob in logprobs]
                return sum(digit * w for digit, w in enumerate(weights)) / sum(weights)
    return float(written[1])


_NUMBER = r"\[[1-9][0-9]{0,3}\]"
_ORDER = re.compile(rf"\s*{_NUMBER}(\s*>\s*{_NUMBER})*\s*\Z")


def order(reply: Reply, count: int) -> list[int]:
    """The documents from the best to the worst, by their places from 0.

    Raises:
        NotInForm: the text is not ``[2] > [1] > …`` with each number from 1 to ``count`` once.
    """
    if not _ORDER.match(reply.text):
        raise NotInForm
    numbers = [int(number) - 1 for number in re.findall("[0-9]+", reply.text)]
    if sorted(numbers) != list(range(count)):
        raise NotInForm
    return numbers
