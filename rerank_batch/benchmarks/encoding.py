"""Our encoder beside `SentenceTransformer.encode` on the same texts, weights and threads."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rerank_batch.errors import ModelError
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.bi_encoder import load_bi_encoder, unit
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.modes import modes_for

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Texts per second of one system, its rate over the peer's of the same round, and the lowest
    cosine of a vector with the peer's of the same text."""

    system: str
    median: float
    ratio: float
    ratio_low: float
    ratio_high: float
    lowest_cosine: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(
    folder: Path,
    max_length: int | None,
    texts: Sequence[str],
    rounds: int,
    threads: int,
    note: Callable[[str], None],
) -> list[Encoded]:
    """Every system in turn, ``rounds`` times after one that is not counted; the peer first."""
    torch.set_num_threads(threads)
    model = load_bi_encoder(folder, max_length)

    def peer() -> Vectors:
        vectors: Vectors = model.encode_document(
            list(texts), batch_size=32, show_progress_bar=False
        )
        return unit(vectors)

    systems: dict[str, Callable[[], Vectors]] = {"SentenceTransformer.encode(batch_size=32)": peer}
    for mode in modes_for("auto", ("bf16",), "auto", pick_device()):
        try:
            encoder = Encoder(folder, EncoderOptions(max_length, mode=mode, threads=threads))
        except ModelError as error:
            note(f"{mode}: {error}")
            continue
        systems[f"ours, {mode}"] = lambda encoder=encoder: encoder.encode_documents(texts)  # type: ignore[misc]
    rates: dict[str, list[float]] = {name: [] for name in systems}
    vectors: dict[str, Vectors] = {}
    for number in range(rounds + 1):
        for name, encode in systems.items():
            began = time.perf_counter()
            vectors[name] = encode()
            if number:
                rates[name].append(len(texts) / (time.perf_counter() - began))
        note(f"round {number} of {rounds}")
    first = next(iter(systems))
    return [
        _encoded(name, rates[name], rates[first], vectors[name], vectors[first]) for name in rates
    ]


def _encoded(
    name: str, rates: list[float], peers: list[float], ours: Vectors, theirs: Vectors
) -> Encoded:
    ratios = [one / other for one, other in zip(rates, peers, strict=True)]
    return Encoded(
        system=name,
        median=statistics.median(rates),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        lowest_cosine=float((ours * theirs).sum(axis=1).min()),
    )
