"""Which mode runs a model: the fastest of those that are allowed, by measurement."""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from rerank_batch.scoring.engine import NotTheSame
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.scoring.runtimes.base import Runtime, Unavailable
from rerank_batch.scoring.tokens import TokenBatch

logger = logging.getLogger(__name__)

_TEXTS, _LENGTH = 4, 128
_SECONDS = 0.5


def choose(modes: Sequence[Mode], opened: Callable[[Mode], Runtime]) -> Choice:
    """Time each mode for about half a second on the same batch and take the fastest.

    ``opened`` gives a mode's runtime, or raises one of the errors below; such modes are left out.

    Raises:
        Unavailable: none of the modes runs here.
        NotTheSame: those that do give other numbers than the model.
    """
    rates: dict[Mode, float] = {}
    reasons = []
    wrong = False
    for mode in modes:
        try:
            rates[mode] = tokens_per_second(opened(mode))
        except (Unavailable, NotTheSame) as error:
            logger.info("%s: %s", mode, error)
            reasons.append(f"{mode}: {error}")
            wrong = wrong or isinstance(error, NotTheSame)
    if not rates:
        message = "; ".join(reasons) or "no mode of that runtime runs on this device"
        raise NotTheSame(message) if wrong else Unavailable(message)
    best = max(rates, key=lambda mode: rates[mode])
    return Choice(best, {str(mode): round(rate, 1) for mode, rate in rates.items()})


def tokens_per_second(runtime: Runtime) -> float:
    """The best of several passes over a few texts; speed does not depend on what they say."""
    lengths = np.full(_TEXTS, _LENGTH)
    same = np.zeros(_TEXTS * _LENGTH, np.int64)
    batch = TokenBatch(ids=same, types=same, positions=same, lengths=lengths)
    best, until = float("inf"), 0.0
    while not until or time.perf_counter() < until:
        began = time.perf_counter()
        runtime.fetch([runtime.run(batch) for _ in range(runtime.ahead)])
        if until:
            best = min(best, time.perf_counter() - began)
        # The first pass prepares kernels and is not counted.
        until = until or time.perf_counter() + _SECONDS
    return float(runtime.ahead * lengths.sum()) / best
