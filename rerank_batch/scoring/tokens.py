"""Texts to token ids, every text once, and what a model reads spliced from them by arrays.

A tokenizer that is handed pairs reads a query again for each of its documents. Here the ids of a
text are made once, and a pair is prefix, query, middle, document, suffix: the ids that the
tokenizer itself would give, which is checked when a `PairTokenizer` or `TextTokenizer` is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_batch.config import Truncation
from rerank_batch.errors import ModelError

IntArray = NDArray[np.int64]


class NotSpliceable(ModelError):
    """What a tokenizer makes of texts cannot be put together from the ids of each."""


@dataclass(frozen=True)
class Tokens:
    """Ids of texts in one flat array: those of text i are ``ids[starts[i]:starts[i + 1]]``."""

    ids: IntArray
    starts: IntArray

    @property
    def lengths(self) -> IntArray:
        """Tokens of each text, int64 [n]."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class TokenBatch:
    """A micro-batch as a model reads it, one text behind the other: int64 [tokens] each.

    ``lengths`` int64 [n] are the tokens of each text, special ones included.
    """

    ids: IntArray
    types: IntArray
    positions: IntArray
    lengths: IntArray

    def even(self) -> tuple[IntArray, IntArray, IntArray]:
        """``ids``, ``types`` and ``positions`` of texts of one length, int64 [n, length] each."""
        shape = (len(self.lengths), -1)
        return self.ids.reshape(shape), self.types.reshape(shape), self.positions.reshape(shape)


@dataclass(frozen=True)
class _Special:
    """Special tokens at one place of what a model reads, with their type ids."""

    ids: IntArray
    types: IntArray


@dataclass(frozen=True)
class _TextPart:
    """A piece of a text in each row: ``kept`` ids from ``starts`` on, all of one type."""

    flat: IntArray
    starts: IntArray
    kept: IntArray
    type: int


class TokenRows:
    """What a model is to read, row by row: special tokens and parts of texts, in order.

    ``lengths`` int64 [n] are the tokens of each row, ``truncated`` bool [n] says which lost some.
    """

    def __init__(
        self,
        pieces: Sequence[_Special | _TextPart],
        truncated: NDArray[np.bool_],
        position_of_padding: int | None,
    ) -> None:
        self._pieces = pieces
        self._padding = position_of_padding
        self.truncated = truncated
        self.lengths: IntArray = np.zeros(len(truncated), np.int64)
        for piece in pieces:
            self.lengths += len(piece.ids) if isinstance(piece, _Special) else piece.kept

    def batch(self, which: IntArray) -> TokenBatch:
        """The rows of those numbers."""
        lengths = self.lengths[which]
        at = np.cumsum(lengths) - lengths
        ids, types = np.empty((2, int(lengths.sum())), np.int64)
        for piece in self._pieces:
            if isinstance(piece, _Special):
                for token, kind in zip(piece.ids, piece.types, strict=True):
                    ids[at], types[at] = token, kind
                    at = at + 1
            else:
                kept = piece.kept[which]
                within = _count_within(kept)
                into = np.repeat(at, kept) + within
                ids[into] = piece.flat[np.repeat(piece.starts[which], kept) + within]
                types[into] = piece.type
                at = at + kept
        return TokenBatch(ids, types, _positions(ids, lengths, self._padding), lengths)


class PairTokenizer:
    """Makes the ids of texts, and rows of a query and a document each.

    ``position_of_padding``: see `network.Network`. ``prompt`` stands before every query and is a
    part of it wherever tokens are counted or cut.

    Raises:
        NotSpliceable: pairs of this tokenizer are more than their two texts and special tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None,
        position_of_padding: int | None = None,
        truncation: Truncation = "longest_first",
        prompt: str = "",
    ) -> None:
        self._tokenizer = _usable(tokenizer)
        self.prompt = prompt
        self._special, self._types = _probe(tokenizer, 2)
        self._padding = position_of_padding
        self._truncation = truncation
        self.max_length = max_length
        self._check()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Ids of each text, without special tokens and uncut."""
        return _tokenize(self._tokenizer, texts)

    def tokenize_queries(self, texts: Sequence[str]) -> Tokens:
        """The same of queries, behind the prompt."""
        return self.tokenize([self.prompt + text for text in texts])

    def rows(
        self, queries: Tokens, documents: Tokens, query_of: IntArray, document_of: IntArray
    ) -> TokenRows:
        """Row i is query ``query_of[i]`` with document ``document_of[i]``."""
        return self._rows(
            queries, documents, query_of, document_of, self.max_length, self._truncation
        )

    def _rows(
        self,
        queries: Tokens,
        documents: Tokens,
        query_of: IntArray,
        document_of: IntArray,
        limit: int | None,
        truncation: Truncation,
    ) -> TokenRows:
        query, document = queries.lengths[query_of], documents.lengths[document_of]
        kept_query, kept_document = query, document
        if limit is not None:
            cut = longest_first if truncation == "longest_first" else only_second
            special = sum(len(each.ids) for each in self._special)
            kept_query, kept_document = cut(query, document, max(limit - special, 0))
        prefix, middle, suffix = self._special
        pieces: list[_Special | _TextPart] = [
            prefix,
            _TextPart(queries.ids, queries.starts[query_of], kept_query, self._types[0]),
            middle,
            _TextPart(documents.ids, documents.starts[document_of], kept_document, self._types[1]),
            suffix,
        ]
        return TokenRows(pieces, (kept_query < query) | (kept_document < document), self._padding)

    def _check(self) -> None:
        """The ids of a few pairs against the tokenizer's own, cut and uncut."""
        tokens = self.tokenize(_SAMPLES)
        number = np.arange(len(_SAMPLES))
        query_of, document_of = (m.ravel() for m in np.meshgrid(number, number, indexing="ij"))
        special = sum(len(each.ids) for each in self._special)
        for limit in (None, special + 21, special + 20):
            rows = self._rows(tokens, tokens, query_of, document_of, limit, "longest_first")
            pairs = [(_SAMPLES[q], _SAMPLES[d]) for q, d in zip(query_of, document_of, strict=True)]
            _compare(rows, self._tokenizer, pairs, "longest_first", limit)


class TextTokenizer:
    """Makes rows of one text each; see `PairTokenizer`."""

    def __init__(
        self, tokenizer: Any, max_length: int | None, position_of_padding: int | None = None
    ) -> None:
        self._tokenizer = _usable(tokenizer)
        self._special, self._types = _probe(tokenizer, 1)
        self._padding = position_of_padding
        self.max_length = max_length
        special = sum(len(each.ids) for each in self._special)
        for limit in (None, special + 10):
            rows = self._rows(_tokenize(tokenizer, _SAMPLES), limit)
            _compare(rows, tokenizer, list(_SAMPLES), True, limit)

    def rows(self, texts: Sequence[str]) -> TokenRows:
        """Row i is text i, its end cut off where it is too long."""
        return self._rows(_tokenize(self._tokenizer, texts), self.max_length)

    def _rows(self, tokens: Tokens, limit: int | None) -> TokenRows:
        prefix, suffix = self._special
        kept = tokens.lengths
        if limit is not None:
            kept = np.minimum(kept, max(limit - len(prefix.ids) - len(suffix.ids), 0))
        part = _TextPart(tokens.ids, tokens.starts[:-1], kept, self._types[0])
        return TokenRows([prefix, part, suffix], kept < tokens.lengths, self._padding)


def longest_first(query: IntArray, document: IntArray, room: int) -> tuple[IntArray, IntArray]:
    """How many tokens of either text a pair keeps where both together may have ``room``.

    The longer loses tokens until both are equally long, then both do; an odd token goes to the one
    that was longer, to the document where none was. As Hugging Face's tokenizers do it
    (``truncate_encodings`` in tokenizers/src/utils/truncation.rs).
    """
    shorter, longer = np.minimum(query, document), np.maximum(query, document)
    longer = np.where(shorter + longer > room, np.maximum(shorter, room - shorter), longer)
    both = shorter + longer > room
    shorter = np.where(both, room // 2, shorter)
    longer = np.where(both, room - room // 2, longer)
    query_is_longer = query > document
    return (
        np.where(query_is_longer, longer, shorter),
        np.where(query_is_longer, shorter, longer),
    )


def only_second(query: IntArray, document: IntArray, room: int) -> tuple[IntArray, IntArray]:
    """The same where the document alone is cut, and the query only once no document is left."""
    query = np.minimum(query, room)
    return query, np.minimum(document, room - query)


_SAMPLES = (
    "",
    "a",
    "what is it?",
    "Ünïcode, 東京 and\ttabs",
    "word " * 40,
    "longer words " * 41,
)


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    if not texts:
        return Tokens(np.zeros(0, np.int64), np.zeros(1, np.int64))
    rows = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return Tokens(np.fromiter(chain.from_iterable(rows), np.int64, count=starts[-1]), starts)


def _usable(tokenizer: Any) -> Any:
    if not tokenizer.is_fast:
        raise NotSpliceable("the tokenizer is not a fast one")
    if tokenizer.truncation_side != "right":
        raise NotSpliceable("the tokenizer cuts on the left")
    return tokenizer


def _probe(tokenizer: Any, texts: int) -> tuple[list[_Special], list[int]]:
    """The special tokens before, between and behind the texts, and the types of the texts."""
    sample: Any = ("a", "b") if texts == 2 else "a"
    probe = tokenizer([sample], return_token_type_ids=True, verbose=False)
    ids, types = (np.array(probe[key][0], np.int64) for key in ("input_ids", "token_type_ids"))
    owner = np.array([-1 if part is None else part for part in probe.sequence_ids(0)])
    special, kinds, start = [], [], 0
    for number in range(texts):
        mine = np.flatnonzero(owner == number)
        if not len(mine) or mine[0] < start or len(mine) != mine[-1] + 1 - mine[0]:
            raise NotSpliceable("the texts do not stand in order")
        special.append(_Special(ids[start : mine[0]], types[start : mine[0]]))
        kinds.append(int(types[mine[0]]))
        start = mine[-1] + 1
    special.append(_Special(ids[start:], types[start:]))
    if not sum(len(each.ids) for each in special):
        raise NotSpliceable("without special tokens a text may have no token at all")
    return special, kinds


def _compare(
    rows: TokenRows, tokenizer: Any, texts: list[Any], truncation: str | bool, limit: int | None
) -> None:
    """Refuse a tokenizer whose own ids are others than those of ``rows``."""
    reference = tokenizer(
        texts,
        truncation=truncation if limit else False,
        max_length=limit,
        return_token_type_ids=True,
        verbose=False,
    )
    batch = rows.batch(np.arange(len(texts)))
    if (
        batch.lengths.tolist() != [len(ids) for ids in reference["input_ids"]]
        or batch.ids.tolist() != list(chain.from_iterable(reference["input_ids"]))
        or batch.types.tolist() != list(chain.from_iterable(reference["token_type_ids"]))
    ):
        raise NotSpliceable("what it makes of texts is more than their ids and special tokens")


def _positions(ids: IntArray, lengths: IntArray, padding: int | None) -> IntArray:
    """0, 1, 2, … in each row; counted as RoBERTa does where it gives padding a position.

    There the first token is ``padding + 1``, and a padding token, which a text may spell out,
    stands at ``padding`` and is not counted.
    """
    if padding is None:
        return _count_within(lengths)
    real = ids != padding
    counted = np.cumsum(real)
    before = np.concatenate([[0], counted])[np.cumsum(lengths) - lengths]
    return padding + np.where(real, counted - np.repeat(before, lengths), 0)


def _count_within(lengths: IntArray) -> IntArray:
    """0, 1, 2, … anew for each of the lengths."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(starts, lengths)
