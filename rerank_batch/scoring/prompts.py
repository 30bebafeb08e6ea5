"""Queries and documents to what a decoder reads of them: ids of a prompt with the texts inside.

A prompt's fixed pieces may hold control tokens, the texts never do: a document that spells out
``<|im_end|>`` reads as those characters. Knows no model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rerank_batch.errors import ModelError
from rerank_batch.scoring.tokens import NotSpliceable

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Template:
    """A prompt: ``before``, the query, ``between``, the document, ``after``.

    The query's text stands between the two strings of ``query``, the document's behind
    ``document``; each is encoded by itself. The query keeps ``query_room`` tokens, and the query,
    ``between`` and the document keep ``room`` together: what is too long loses its end.
    """

    before: Sequence[int]
    query: tuple[str, str]
    between: Sequence[int]
    document: str
    after: Sequence[int]
    query_room: int
    room: int


@dataclass(frozen=True)
class TokenPrompt:
    """The prompt of a query, for each of its distinct documents.

    ``prefix`` is what they share, ``bodies`` are the ids of each, without ``after``. ``truncated``
    says which pairs lost some, ``which[i]`` is the body of the document that was given as number i.
    """

    prefix: IntArray
    bodies: list[IntArray]
    truncated: NDArray[np.bool_]
    which: IntArray


class PromptTokenizer:
    """Makes the prompts of a template.

    ``control`` are added tokens that no text may become, besides the special ones.

    Raises:
        ModelError: the template leaves no room for texts.
        NotSpliceable: the texts' ids would be others if they were encoded in one piece, as a
            template with nothing between them wants it.
    """

    def __init__(self, tokenizer: Any, template: Template, control: Sequence[str] = ()) -> None:
        if template.room < 1:
            raise ModelError("max_length is too short: the prompt alone takes all of it")
        self.template = template
        self.after = np.array(template.after, np.int64)
        self._text = _without_control(tokenizer, control)
        if not len(template.between):
            self._check_split()

    def prompts(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> list[TokenPrompt]:
        """One prompt for each query; every distinct text is encoded once."""
        template = self.template
        number = {
            text: n for n, text in enumerate(dict.fromkeys(d for ds in documents for d in ds))
        }
        bodies = self._encode([template.document + text for text in number])
        first, last = template.query
        query_ids = self._encode([first + text + last for text in queries])
        return [
            self._prompt(query, bodies, np.array([number[text] for text in listed], np.int64))
            for query, listed in zip(query_ids, documents, strict=True)
        ]

    def _prompt(
        self, query: IntArray, bodies: Sequence[IntArray], numbers: IntArray
    ) -> TokenPrompt:
        template = self.template
        kept = query[: template.query_room]
        prefix = np.concatenate([template.before, kept, template.between]).astype(np.int64)
        room = max(template.room - len(kept) - len(template.between), 0)
        distinct, which = np.unique(numbers, return_inverse=True)
        whole = [bodies[number] for number in distinct]
        lost = [len(kept) < len(query) or len(body) > room for body in whole]
        return TokenPrompt(prefix, [body[:room] for body in whole], np.array(lost, np.bool_), which)

    def _encode(self, texts: Sequence[str]) -> list[IntArray]:
        encodings = self._text.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.int64) for each in encodings]

    def _check_split(self) -> None:
        first, last = self.template.query
        for text in ("", " a", "1", "?!", "\n", "Ω"):
            query, document = first + text + last, self.template.document + text
            whole, *parts = self._encode([query + document, query, document])
            if whole.tolist() != np.concatenate(parts).tolist():
                raise NotSpliceable(f"the tokenizer joins tokens across {last + document!r}")


def _without_control(tokenizer: Any, control: Sequence[str]) -> Tokenizer:
    """A copy of a fast tokenizer that finds neither special tokens nor ``control`` in a text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [
        token
        for token in state["added_tokens"]
        if not token["special"] and token["content"] not in control
    ]
    state["truncation"] = state["padding"] = None
    return Tokenizer.from_str(json.dumps(state))
