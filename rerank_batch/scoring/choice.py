"""Which mode runs a model: the fastest of those that are allowed, by measurement."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.scoring.runtime import Runtime, Unavailable
from rerank_batch.scoring.tokens import TokenBatch

logger = logging.getLogger(__name__)

_TEXTS, _LENGTH = 4, 128
_SECONDS = 0.5


def choose(
    modes: Sequence[Mode], opened: Callable[[Mode], Runtime], vocabulary: int = 1000
) -> Choice:
    """Time each mode for about half a second on the same batch and take the fastest.

    ``opened`` gives a mode's runtime, or raises `Unavailable`; modes that do are left out.

    Raises:
        Unavailable: none of the modes runs here.
    """
    rates: dict[Mode, float] = {}
    reasons = []
    for mode in modes:
        try:
            rates[mode] = tokens_per_second(opened(mode), vocabulary)
        except Unavailable as error:
            logger.info("%s: %s", mode, error)
            reasons.append(f"{mode}: {error}")
    if not rates:
        raise Unavailable("; ".join(reasons))
    best = max(rates, key=lambda mode: rates[mode])
    return Choice(best, {str(mode): round(rate, 1) for mode, rate in rates.items()})


def tokens_per_second(runtime: Runtime, vocabulary: int) -> float:
    """The best of several passes over a few texts of random tokens."""
    rng = np.random.default_rng(0)
    lengths = np.full(_TEXTS, _LENGTH)
    batch = TokenBatch(
        ids=rng.integers(0, vocabulary, _TEXTS * _LENGTH),
        types=np.zeros(_TEXTS * _LENGTH, np.int64),
        positions=np.tile(np.arange(_LENGTH), _TEXTS),
        lengths=lengths,
    )
    best, until = float("inf"), 0.0
    while not until or time.perf_counter() < until:
        began = time.perf_counter()
        runtime.fetch([runtime.run(batch)])
        if until:
            best = min(best, time.perf_counter() - began)
        # The first pass prepares kernels and is not counted.
        until = until or time.perf_counter() + _SECONDS
    return float(lengths.sum()) / best
