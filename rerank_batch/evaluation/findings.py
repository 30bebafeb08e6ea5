"""Everything that one reading of a run's judged queries finds, in parts that add up.

A part is what some queries say: values per query, sums, and the few cases worth showing. Parts are
made wherever the rows are and joined in any order, so that no process ever holds the run.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rerank_batch.data.qrels import Judgements
from rerank_batch.evaluation.comparison import (
    Comparison,
    MeasuredBlock,
    Signal,
    measured_block,
    merged,
)
from rerank_batch.evaluation.depth.study import DepthStudy, DepthSums, depth_study, study_block
from rerank_batch.evaluation.failures.study import Failures, find_failures, joined
from rerank_batch.evaluation.judged import External, JudgedQuery, judged_blocks
from rerank_batch.evaluation.scores.samples import ScoredList, ScoreSamples
from rerank_batch.evaluation.scores.study import ScoreStudy, study_samples
from rerank_batch.remarks import NotKnown

_THINNING = 20
"""Of a large run the scores of one query in so many are kept."""


@dataclass(frozen=True)
class Questions:
    """What is asked of a run: the measures of its systems, the first being the baseline.

    ``depths`` are the systems whose smaller depths can be told, with how much each read; ``scored``
    those whose scores are of one model; ``signals`` what is wanted of the scores of retrieval.
    ``rejected`` are the ids of judged queries that were rejected. Of a run that is ``large`` depths
    are not kept per query, and scores only of some queries.
    """

    measures: tuple[str, ...]
    systems: tuple[str, ...]
    depths: Mapping[str, int] = field(default_factory=dict)
    scored: tuple[str, ...] = ()
    signals: Mapping[str, Signal] = field(default_factory=dict)
    rejected: frozenset[str] = frozenset()
    large: bool = False


@dataclass(frozen=True)
class FindingsPart:
    """What some of the queries say; `Findings` of all of them."""

    values: tuple[MeasuredBlock, ...]
    failures: Mapping[str, Failures]
    depths: Mapping[str, tuple[DepthSums, ...]]
    scores: Mapping[str, ScoreSamples]


@dataclass(frozen=True)
class Findings:
    """What all judged queries say; ``failures``, ``depths`` and ``scores`` are by system."""

    comparison: Comparison
    failures: Mapping[str, Failures]
    depths: Mapping[str, DepthStudy]
    scores: Mapping[str, ScoreStudy | NotKnown]


def find(
    paths: Sequence[str],
    qrels: Judgements,
    questions: Questions,
    external: External | None = None,
) -> FindingsPart:
    """Read result files, some hundreds of queries at a time."""
    blocks = judged_blocks(paths, qrels, external)
    return join((find_in_block(block, questions) for block in blocks), questions)


def find_in_file(path: str, qrels: Judgements, questions: Questions) -> FindingsPart:
    """The same of one file: what a worker does."""
    return find([path], qrels, questions)


def find_in_block(block: Sequence[JudgedQuery], questions: Questions) -> FindingsPart:
    """What a block of queries says."""
    baseline, *others = questions.systems
    headline = questions.measures[0]
    values = measured_block(
        block, questions.systems, questions.measures, questions.rejected, questions.signals
    )
    by_query = {
        system: dict(zip(values.query_ids, values.values[system][headline].tolist(), strict=True))
        for system in questions.systems
    }
    return FindingsPart(
        values=(values,),
        failures={
            system: find_failures(
                block, (baseline, system), headline, by_query[baseline], by_query[system]
            )
            for system in others
        },
        depths={
            system: (study_block(block, system, questions.measures, depth, not questions.large),)
            for system, depth in questions.depths.items()
        },
        scores={system: _scores(block, system, questions.large) for system in questions.scored},
    )


def _scores(block: Sequence[JudgedQuery], system: str, thinned: bool) -> ScoreSamples:
    samples = ScoreSamples(system, thinned=thinned)
    for query in block:
        if not thinned or zlib.crc32(query.query_id.encode()) % _THINNING == 0:
            listed = query.lists[system]
            samples.add(ScoredList(query.query_id, query.grades, listed.doc_ids, listed.scores))
    return samples


def join(parts: Iterable[FindingsPart], questions: Questions) -> FindingsPart:
    """Several parts as one; of the failures only the worst are kept on the way."""
    headline = questions.measures[0]
    values: list[MeasuredBlock] = []
    failures = {system: joined((), headline) for system in questions.systems[1:]}
    depths: dict[str, list[DepthSums]] = {system: [] for system in questions.depths}
    scores = {system: ScoreSamples(system, thinned=questions.large) for system in questions.scored}
    for part in parts:
        values += part.values
        for system, samples in part.scores.items():
            scores[system].join(samples)
        for system, found in part.failures.items():
            failures[system] = joined((failures[system], found), headline)
        for system, sums in part.depths.items():
            depths[system] += sums
    return FindingsPart(
        values=tuple(values),
        failures=failures,
        depths={name: tuple(sums) for name, sums in depths.items()},
        scores=scores,
    )


def conclude(part: FindingsPart, questions: Questions) -> Findings:
    """What the parts of a whole run, joined, amount to."""
    comparison = merged(part.values, questions.systems, questions.rejected, questions.measures)
    return Findings(
        comparison=comparison,
        failures=part.failures,
        depths={
            system: depth_study(sums, questions.measures, comparison.queries)
            for system, sums in part.depths.items()
        },
        scores={system: study_samples(samples) for system, samples in part.scores.items()},
    )
