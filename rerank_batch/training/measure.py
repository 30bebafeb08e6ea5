"""What a trained model gained: start and result on queries of the labels.

Both are scored as `rerank` would score them, from their folders, in float32.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rerank_batch.evaluation.significance import PairedTest, paired_tests
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.schema import JsonObject
from rerank_batch.scoring.modes import Mode
from rerank_batch.training.dev import DevQueries, average


@dataclass(frozen=True)
class MeasuredSplit:
    """Systems on the queries of one split: means by system, and the tuned model's gains.

    Systems are ``start``, ``tuned`` and, where the labels tell ranks, ``retrieval``; gains are
    under the name of the system that they are over.
    """

    split: str
    queries: int
    pairs: int
    means: dict[str, float]
    gains: dict[str, PairedTest]

    def to_json(self) -> JsonObject:
        """For JSON."""
        gains = {name: {**asdict(g), "outcome": g.outcome} for name, g in self.gains.items()}
        return {**vars(self), "gains": gains}


def measure_models(
    splits: Mapping[str, DevQueries], start: Path, tuned: Path, threads: int
) -> list[MeasuredSplit]:
    """Two models on those of the splits that have queries to measure on."""
    options = ScorerOptions(mode=Mode("torch", "fp32"), threads=threads)
    scorers = {
        name: load_scorer(ModelName("cross-encoder", str(folder)), options)
        for name, folder in (("start", start), ("tuned", tuned))
    }
    return [_measured(split, judged, scorers) for split, judged in splits.items() if judged.queries]


def _measured(split: str, judged: DevQueries, scorers: Mapping[str, PairScorer]) -> MeasuredSplit:
    found = {
        name: judged.of_model(lambda *pairs, by=scorer: by.score(*pairs).values)
        for name, scorer in scorers.items()
    }
    if (retrieval := judged.of_retrieval()) is not None:
        found["retrieval"] = retrieval
    tuned = found["tuned"]
    gains = {
        name: [tuned[query] - values[query] for query in sorted(values)]
        for name, values in found.items()
        if name != "tuned"
    }
    return MeasuredSplit(
        split,
        len(judged.queries),
        judged.pairs,
        {name: average(values) for name, values in found.items()},
        paired_tests(gains),
    )
