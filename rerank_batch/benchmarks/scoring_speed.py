"""The engine beside `CrossEncoder.predict` on the same pairs, weights, lengths and threads.

Speed does not depend on what the weights are, so models of true sizes are made here from a seed, as
is a tokenizer of 30,000 words, and texts of known lengths. Every system tokenises on its own time.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from rerank_batch.config import Format
from rerank_batch.models.settings import forward_flops
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.runtimes.base import Unavailable
from rerank_batch.scoring.runtimes.openvino import compiled_product

SIZES: dict[str, tuple[int, int]] = {
    "minilm-l6": (6, 384),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Layers and width of models in use; heads of 64 (32 for the smallest), feed-forward 4x."""

MIXES = ("short", "passages", "long-tail")
"""Lengths of pairs: 16 to 48 tokens evenly; about 90, as in MS MARCO; log-normal up to 512."""

PEAKS = {"fp32": torch.float32, "bf16": torch.bfloat16}

_VOCABULARY = 30_000
_GEMM = 1536


@dataclass(frozen=True)
class Workload:
    """Queries with their documents, and the tokens of each pair, special ones included."""

    queries: list[str]
    documents: list[list[str]]
    lengths: NDArray[np.int64]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """One by one, as `predict` takes them."""
        return [(q, d) for q, ds in zip(self.queries, self.documents, strict=True) for d in ds]


@dataclass(frozen=True)
class Timing:
    """Pairs per second of one system over all rounds, and how far its scores are from B0's.

    ``ratio`` is its rate over B0's of the same round.
    """

    system: str
    median: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    largest_difference: float


@dataclass(frozen=True)
class Comparison:
    """What was found for one model and one mix; rates in pairs per second, peaks in GFLOP/s.

    ``peak_share`` is, for each system of ours in fp32 or bf16, the operations of a whole forward
    pass over the peak of its number format: the last layer that is not computed counts as if it
    were.
    """

    size: str
    mix: str
    pairs: int
    mean_tokens: float
    rounds: int
    threads: int
    padding: float
    gemm_peaks: dict[str, float]
    peak_share: dict[str, float]
    timings: list[Timing]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


System = Callable[[], tuple[NDArray[np.float32], float]]
"""Scores all pairs once; the scores and the seconds that took."""


def write_model(folder: Path, size: str, seed: int = 0) -> Path:
    """A BERT cross-encoder of that size with random weights and a tokenizer of whole words."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    layers, width = SIZES[size]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(_word, range(_VOCABULARY))]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=12 if width < 1024 else 16,
        intermediate_size=4 * width,
        num_labels=1,
    )
    torch.manual_seed(seed)
    BertForSequenceClassification(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    return folder


def workload(mix: str, queries: int, depth: int, seed: int = 0) -> Workload:
    """Texts of seeded words whose pairs have the lengths of the mix."""
    rng = np.random.default_rng(seed)
    query_words = rng.integers(3, 10, queries)
    count = queries * depth
    if mix == "short":
        lengths = rng.integers(16, 49, count)
    elif mix == "passages":
        lengths = rng.normal(90, 25, count).clip(24, 200).astype(np.int64)
    else:
        lengths = rng.lognormal(4.9, 0.7, count).clip(24, 512).astype(np.int64)
    lengths = lengths.reshape(queries, depth)
    document_words = np.maximum(lengths - query_words[:, None] - 3, 1)

    def text(words: int) -> str:
        return " ".join(map(_word, rng.integers(0, _VOCABULARY, words)))

    return Workload(
        [text(n) for n in query_words],
        [[text(n) for n in row] for row in document_words],
        (document_words + query_words[:, None] + 3).ravel(),
    )


def predict(folder: Path, work: Workload, batch_size: int, dtype: torch.dtype) -> System:
    """`CrossEncoder.predict` with raw logits."""
    model = CrossEncoder(str(folder), device=pick_device(), model_kwargs={"dtype": dtype})
    pairs = work.pairs

    def scores() -> NDArray[np.float32]:
        found = model.predict(
            pairs,
            batch_size=batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return np.asarray(found, np.float32)

    return timed_system(scores)


def plain_predict(folder: Path, work: Workload, threads: int) -> System:
    """`predict` as it is called by default, in float32."""
    torch.set_num_threads(threads)
    return predict(folder, work, 32, torch.float32)


def tuned_predict(folder: Path, work: Workload) -> tuple[str, System]:
    """The best of some batch sizes and number formats on a tenth of the pairs, and what it is."""
    tenth = max(1, len(work.queries) // 10)
    some = Workload(work.queries[:tenth], work.documents[:tenth], work.lengths[:tenth])
    best = (float("inf"), 0, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        for size in (8, 32, 128):
            run = predict(folder, some, size, dtype)
            run()
            best = min(best, (run()[1], size, dtype), key=lambda tried: tried[0])
    _, size, dtype = best
    name = str(dtype).removeprefix("torch.")
    return f"B1 predict({size}, {name})", predict(folder, work, size, dtype)


class PredictActor:
    """What one writes first: an actor that calls `predict` on each batch that Ray hands it."""

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = CrossEncoder(
            str(folder), device=pick_device(), model_kwargs={"dtype": torch.float32}
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """``query`` and ``document`` in; ``score`` added, and when the batch began and ended."""
        began = time.time()
        pairs = list(zip(batch["query"].to_pylist(), batch["document"].to_pylist(), strict=True))
        scores = self._model.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return pa.table(
            {
                "number": batch["number"],
                "score": np.asarray(scores, np.float32),
                "began": [began] * len(pairs),
                "ended": [time.time()] * len(pairs),
            }
        )


def engine(
    folder: Path, work: Workload, mode: Mode, threads: int
) -> tuple[CrossEncoderScorer, System]:
    """Our scorer in one mode, and it as a system.

    Raises:
        Unavailable: there is no such mode here.
    """
    scorer = CrossEncoderScorer(folder, ScorerOptions(mode=mode, threads=threads))
    return scorer, timed_system(
        lambda: np.concatenate(scorer.score(work.queries, work.documents).values)
    )


def measure(
    systems: Mapping[str, System], rounds: int, threads: int, note: Callable[[str], None]
) -> tuple[list[Timing], dict[str, float]]:
    """Each system in turn, ``rounds`` times, after a first round that is not counted.

    The first system is what the others are compared with. Also gives the peaks of fp32 and bf16,
    GFLOP/s.
    """
    rates: dict[str, list[float]] = {name: [] for name in systems}
    scores: dict[str, NDArray[np.float32]] = {}
    peaks: dict[str, list[float]] = {name: [] for name in PEAKS}
    for number in range(rounds + 1):
        for name in PEAKS:
            peaks[name].append(gemm_peak(name, threads))
        for name, run in systems.items():
            scores[name], seconds = run()
            if number:
                rates[name].append(len(scores[name]) / seconds)
        note(f"round {number} of {rounds}")
    found = {name: statistics.median(values) for name, values in peaks.items()}
    return list(_timings(rates, scores)), found


def peak_share(size: str, lengths: NDArray[np.int64], rate: float, peak: float) -> float:
    """The share of the peak (GFLOP/s) that so many pairs per second of those lengths take."""
    layers, width = SIZES[size]
    model = {"num_hidden_layers": layers, "hidden_size": width}
    flops = float(np.mean([forward_flops(model, int(length)) for length in lengths]))
    return rate * flops / 1e9 / peak


def _timings(
    rates: dict[str, list[float]], scores: dict[str, NDArray[np.float32]]
) -> Iterator[Timing]:
    first = next(iter(rates))
    for name, values in rates.items():
        ratios = [ours / base for ours, base in zip(values, rates[first], strict=True)]
        yield Timing(
            system=name,
            median=statistics.median(values),
            low=min(values),
            high=max(values),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            largest_difference=float(np.abs(scores[name] - scores[first]).max()),
        )


def gemm_peak(number_format: str, threads: int, seconds: float = 0.5) -> float:
    """GFLOP/s of square products in fp32 or bf16, the best of many; on CPUs also by whichever of
    torch and OpenVINO is faster there: neither is on every CPU."""
    if pick_device() == "cuda":
        return _torch_peak(number_format, "cuda", 8 * _GEMM, seconds)
    found = _torch_peak(number_format, "cpu", _GEMM, seconds)
    try:
        return max(found, _openvino_peak(number_format, threads, seconds))
    except Unavailable:
        return found


def _torch_peak(number_format: str, device: str, width: int, seconds: float) -> float:
    one, other = (
        torch.randn(width, width, device=device).to(PEAKS[number_format]) for _ in range(2)
    )

    def product() -> None:
        torch.mm(one, other)
        if device == "cuda":
            torch.cuda.synchronize()

    return _best_rate(product, width, seconds)


def _openvino_peak(number_format: str, threads: int, seconds: float) -> float:
    """As in a linear layer: the second factor is known when the graph is compiled."""
    weights = np.random.default_rng(0).standard_normal((_GEMM, _GEMM), np.float32)
    run = compiled_product(weights, cast("Format", number_format), threads)
    return _best_rate(lambda: run(weights), _GEMM, seconds)


def _best_rate(product: Callable[[], object], width: int, seconds: float) -> float:
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        product()
        best = max(best, 2 * width**3 / (time.perf_counter() - began) / 1e9)
    return best


def timed_system(scores: Callable[[], NDArray[np.float32]]) -> System:
    """What gives the scores, with the seconds that took."""

    def run() -> tuple[NDArray[np.float32], float]:
        began = time.perf_counter()
        found = scores()
        return found, time.perf_counter() - began

    return run


def _word(number: int) -> str:
    """A word of letters for every number, so that a tokenizer splits texts at blanks alone."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "w" + "".join(letters[number // 26**power % 26] for power in range(4))
