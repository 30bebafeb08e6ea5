"""Texts and pairs to numbers by our own path: tokenise each text once, splice, pack, run.

Knows a loaded sentence-transformers model as a source of weights, tokenizer and truth: an engine is
held to what the model itself gives for a few samples before it is used.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rerank_batch.config import Format
from rerank_batch.errors import ModelError
from rerank_batch.progress import pairs as progress
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import FloatArray, Runtime
from rerank_batch.scoring.tokens import PairTokenizer, TextTokenizer, TokenBatch, TokenRows

IntArray = NDArray[np.int64]

_WINDOW_PAIRS = 16_384
_WINDOW_TEXTS = 16_384
_PROBES = (
    ("what is it?", "a short text"),
    ("Ünïcode, 東京", "and\ttabs"),
    ("word " * 300, "longer words " * 200),
    ("a question", "an answer of a few words " * 12),
    ("", "alone"),
    ("alone", ""),
)
_PLAIN = [all(texts) for texts in _PROBES]
_SAME: dict[Format, float] = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.3}
"""How far a logit of about 1 may be from the model's own."""


class NotTheSame(ModelError):
    """What the engine gives for a model is not what the model gives."""


@dataclass(frozen=True)
class Window:
    """Pairs that are tokenised, sorted and packed together, none of them twice.

    Row ``which[i]`` is pair i of those that were asked for.
    """

    rows: TokenRows
    which: IntArray


class PairEngine:
    """Scores pairs, window by window; the next is tokenised while one is in the model."""

    def __init__(self, tokenizer: PairTokenizer, runtime: Runtime, budget: TokenBudget) -> None:
        self.tokenizer = tokenizer
        self.runtime = runtime
        self.budget = budget

    def score(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Logits of all pairs, query by query, and whether each pair was cut."""
        logits, truncated = [np.empty(0, np.float32)], [np.empty(0, np.bool_)]
        for window in self._windows(queries, documents):
            logits.append(self._logits(window)[window.which])
            truncated.append(window.rows.truncated[window.which])
        return np.concatenate(logits), np.concatenate(truncated)

    def _windows(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> Iterator[Window]:
        """Whole queries with about `_WINDOW_PAIRS` pairs, each made while the last one is used."""
        ends = np.cumsum([len(listed) for listed in documents])
        full = np.arange(_WINDOW_PAIRS, ends[-1] if len(ends) else 0, _WINDOW_PAIRS)
        cuts = sorted({0, len(queries), *(np.searchsorted(ends, full) + 1).tolist()})
        with ThreadPoolExecutor(1) as ahead:
            made = None
            for start, stop in pairwise(cuts):
                next_one = ahead.submit(self.window, queries[start:stop], documents[start:stop])
                if made is not None:
                    yield made.result()
                made = next_one
            if made is not None:
                yield made.result()

    def window(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> Window:
        """Tokenise every distinct text once and list every distinct pair once."""
        query_number = {text: number for number, text in enumerate(dict.fromkeys(queries))}
        listed = dict.fromkeys(text for texts in documents for text in texts)
        number = {text: n for n, text in enumerate(listed)}
        document_of = np.array([number[t] for texts in documents for t in texts], np.int64)
        query_of = np.repeat(
            np.array([query_number[text] for text in queries], np.int64),
            [len(texts) for texts in documents],
        )
        several = max(len(listed), 1)
        pairs, which = np.unique(query_of * several + document_of, return_inverse=True)
        rows = self.tokenizer.rows(
            self.tokenizer.tokenize_queries(list(query_number)),
            self.tokenizer.tokenize(list(listed)),
            pairs // several,
            pairs % several,
        )
        return Window(rows, which)

    def _logits(self, window: Window) -> FloatArray:
        rows = window.rows
        logits = np.empty(len(rows.lengths), np.float32)
        pairs = np.bincount(window.which, minlength=len(rows.lengths))
        for which, found in _run_all(self.runtime, self.budget, rows, pairs):
            logits[which] = found
        return logits


class TextEngine:
    """Runs single texts: one vector for each, or one for each of its tokens."""

    def __init__(self, tokenizer: TextTokenizer, runtime: Runtime, budget: TokenBudget) -> None:
        self.tokenizer = tokenizer
        self.runtime = runtime
        self.budget = budget

    def vectors(self, texts: Sequence[str], width: int) -> FloatArray:
        """A vector for each text, [n, width], of a network that reads one."""
        vectors = np.empty((len(texts), width), np.float32)
        for start in range(0, len(texts), _WINDOW_TEXTS):
            rows = self.tokenizer.rows(texts[start : start + _WINDOW_TEXTS])
            for which, found in _run_all(self.runtime, self.budget, rows):
                vectors[start + which] = found
        return vectors

    def tokens(
        self,
        texts: Sequence[str],
        take: Callable[[IntArray, TokenBatch, FloatArray], None],
    ) -> NDArray[np.bool_]:
        """Hand ``take`` the numbers of texts, their batch and the vectors of all its tokens.

        Returns which texts were cut. Nothing is kept but of the batches that are being worked on.
        """
        rows = self.tokenizer.rows(texts)
        pending: deque[tuple[IntArray, TokenBatch, Any]] = deque()

        def take_first() -> None:
            which, batch, output = pending.popleft()
            take(which, batch, self.runtime.fetch([output])[0])

        def forward(which: IntArray) -> None:
            batch = rows.batch(which)
            pending.append((which, batch, self.runtime.run(batch)))
            if len(pending) > self.runtime.ahead:
                take_first()

        self.budget.each(rows.lengths, forward, self.runtime.even)
        while pending:
            take_first()
        return rows.truncated


def _run_all(
    runtime: Runtime, budget: TokenBudget, rows: TokenRows, pairs: IntArray | None = None
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Which rows, and what came out, of every micro-batch; a GPU is waited for at the end.

    ``pairs`` is how many each row stands for, to be told as they are scored: on a GPU, as they are
    sent there.
    """
    places: list[IntArray] = []
    pending: list[Any] = []

    def forward(which: IntArray) -> None:
        pending.append(runtime.run(rows.batch(which)))
        places.append(which)
        if pairs is not None:
            progress.scored(int(pairs[which].sum()))

    budget.each(rows.lengths, forward, runtime.even)
    return zip(places, runtime.fetch(pending), strict=True)


class Scores(Protocol):
    """What scores pairs: an engine, or sentence-transformers' own code in our batches."""

    def score(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """See `PairEngine.score`."""


def probe(model: Any) -> FloatArray:
    """What ``model.predict`` gives for a few pairs, for `check_engine`."""
    logits = model.predict(
        list(_PROBES), activation_fn=torch.nn.Identity(), show_progress_bar=False
    )
    return np.asarray(logits, np.float32).reshape(-1)


def plain(reference: FloatArray) -> FloatArray:
    """Of what `probe` gave, that of pairs whose texts are not empty."""
    return reference[_PLAIN]


def check_engine(engine: Scores, reference: FloatArray, format: Format) -> None:
    """Compare the logits of a few pairs with the model's own; see `probe`.

    Raises:
        NotTheSame: they are further apart than the number format explains.
    """
    logits, _ = engine.score([q for q, _ in _PROBES], [[d] for _, d in _PROBES])
    check_same(logits, reference, format)


def check_same(values: FloatArray, reference: FloatArray, format: Format) -> None:
    """Refuse numbers that are further apart than the number format explains: `NotTheSame`.

    What is no number in one has to be none in the other, as of a text without a token.
    """
    if values.shape != reference.shape or not _are_near(values, reference, format):
        raise NotTheSame(
            f"{values.ravel()[:6].tolist()} where the model gives {reference.ravel()[:6].tolist()}"
        )


def _are_near(values: FloatArray, reference: FloatArray, format: Format) -> bool:
    bound = _SAME[format] * (1 + np.abs(reference))
    near: NDArray[np.bool_] = np.abs(values - reference) <= bound
    return bool((near | (np.isnan(values) & np.isnan(reference))).all())
