"""What a system's scores mean: where those of relevant documents lie, and what a score promises.

Scores of any scale come in, document by document with their grades; out comes per system how they
are distributed, whether a relevant document scores above another one, and which share of the
documents of a score is relevant. Judgements cover what earlier systems found: a document that
nobody judged may well be relevant, so it is a class of its own here and never counts as wrong,
except where a share is told as a lower bound and says so.

Scores of a system have to be of one model: those of two stages of a cascade share no scale.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from rerank_batch.evaluation.readable import digits_of, number_text, percent, round_edges
from rerank_batch.evaluation.scores.calibration import Calibration, calibrate_scores
from rerank_batch.evaluation.scores.samples import (
    KINDS,
    NOT_JUDGED,
    NOT_RELEVANT,
    RELEVANT,
    SAMPLE,
    Floats,
    Kind,
    ScoredList,
    ScoreSamples,
    higher_and_equal,
)
from rerank_batch.remarks import NotKnown
from rerank_batch.schema import JsonObject

BINS = 30
"""A histogram has at most two more: its edges are round numbers."""

GROUPS = 10
SMALLEST = 20
"""Documents in the smallest of groups that are not of one size."""

FEWEST_NOT_RELEVANT = 10
"""Fewer documents judged as not relevant say nothing about what a score promises."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ScoreClass:
    """The scores of the documents of one kind, per bin of the study's edges.

    ``documents`` is how many there are, ``counts`` how many of those kept lie in a bin.
    """

    kind: Kind
    documents: int
    counts: tuple[int, ...]
    median: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the documents in each bin."""
        kept = sum(self.counts)
        return tuple(count / kept if kept else 0.0 for count in self.counts)


@dataclass(frozen=True)
class ScoreGroup:
    """The documents from one score to another.

    ``interval`` is the 95 % interval of ``share`` by Wilson. It takes documents for independent;
    those of one query are alike, so the true one is wider. ``fitted`` is the mean probability of
    its documents as the calibration gives it to queries that it has not seen.
    """

    low: float
    high: float
    documents: int
    relevant: int
    interval: tuple[float, float]
    fitted: float | None = None

    @property
    def share(self) -> float:
        """The share that is relevant."""
        return self.relevant / self.documents


@dataclass(frozen=True)
class Order:
    """How often a relevant document scores above another one; an equal score counts half.

    ``within`` is the share of ``pairs``, each of two documents of one query; ``across`` that of
    documents of any two queries, which is the area under the ROC curve. None without any pair.
    """

    others: Kind
    pairs: int
    within: float | None
    across: float | None


@dataclass(frozen=True)
class ScoreStudy:
    """Scores of one system over the judged queries; groups go from the lowest score to the highest.

    Groups are tenths of the judged documents, as near as equal scores allow. ``is_lower_bound``
    says that hardly anything was judged as not relevant: then they are of all documents, what
    nobody judged counts as not relevant, and each group is half as large as the one below it,
    because relevant documents are few and score high. ``unread`` documents have no score.
    ``sampled`` says that there were too many to keep them all.
    """

    system: str
    edges: tuple[float, ...]
    classes: tuple[ScoreClass, ...]
    groups: tuple[ScoreGroup, ...]
    is_lower_bound: bool
    order: Order
    calibration: Calibration | None
    unread: int
    sampled: bool

    def text(self, score: float) -> str:
        """A score with the digits that tell those of this system apart."""
        return number_text(score, digits_of(self.edges) + 1)

    def to_json(self) -> JsonObject:
        """The study as JSON values."""
        width = self.edges[1] - self.edges[0]
        return {
            "edges": list(self.edges),
            "kinds": {
                each.kind: {
                    "documents": each.documents,
                    "median": each.median,
                    "counts": list(each.counts),
                    "densities": [share / width for share in each.shares],
                }
                for each in self.classes
            },
            "groups": [{**vars(group), "share": group.share} for group in self.groups],
            "is_lower_bound": self.is_lower_bound,
            "pairs": {**vars(self.order)},
            "calibration": vars(self.calibration) if self.calibration else None,
            "unread": self.unread,
            "sampled": self.sampled,
            "in_words": list(self.in_words()),
        }

    def in_words(self) -> tuple[str, ...]:
        """What the scores can be used for, in sentences."""
        found = [self._order_in_words(), self._groups_in_words(), self._calibration_in_words()]
        return tuple(sentence for sentence in found if sentence)

    def _order_in_words(self) -> str:
        order = self.order
        if order.within is None or order.across is None:
            return ""
        other = "not judged" if order.others == "not judged" else "judged as not relevant"
        sentence = (
            f"Of a relevant document and one {other}, the relevant one scores higher in "
            f"{percent(order.within)} of {order.pairs:,} pairs of one query, and in "
            f"{percent(order.across)} where the two are of any queries"
        )
        if order.within - order.across >= 0.02:
            return f"{sentence}: scores order a list better than they compare lists."
        return f"{sentence}: between queries scores tell about as much as within one."

    def _groups_in_words(self) -> str:
        if not self.groups or not self.classes[RELEVANT].documents:
            return ""
        top, bottom = self.groups[-1], self.groups[0]
        which = "documents" if self.is_lower_bound else "judged documents"
        known = "known to be " if self.is_lower_bound else ""
        sentence = (
            f"A score of {self.text(top.low)} or more is {known}relevant in {top.relevant:,} of "
            f"{top.documents:,} {which} ({percent(top.share)}, 95 % interval "
            f"{percent(top.interval[0])} to {percent(top.interval[1])})"
        )
        if len(self.groups) > 1:
            sentence += (
                f", one of {self.text(bottom.high)} or less in {bottom.relevant:,} of "
                f"{bottom.documents:,} ({percent(bottom.share)})"
            )
        return f"{sentence}."

    def _calibration_in_words(self) -> str:
        found = self.calibration
        if found is None:
            return ""
        signs = ["\N{MINUS SIGN}" if each < 0 else "" for each in (found.intercept, found.slope)]
        return (
            "Among judged documents the probability of relevance is about "
            "1 / (1 + exp(\N{MINUS SIGN}x)), where x is "
            f"{signs[0]}{abs(found.intercept):.3g} {signs[1] or '+'} {abs(found.slope):.3g} · "
            "score. On queries that this was not fitted on it is off by "
            f"{100 * found.error:.1f} percentage points on average; the scores as they are would "
            f"be off by {100 * found.error_as_is:.1f}."
        )


def study_scores(
    blocks: Iterable[Mapping[str, Sequence[ScoredList]]], sample: int = SAMPLE
) -> dict[str, ScoreStudy | NotKnown]:
    """Study every system of ``blocks``, which hold the lists of some judged queries by system.

    Raises:
        InputError: a score is infinite.
    """
    collected: dict[str, ScoreSamples] = {}
    for block in blocks:
        for system, lists in block.items():
            scores = collected.setdefault(system, ScoreSamples(system, sample))
            for listed in lists:
                scores.add(listed)
    return {system: study_samples(scores) for system, scores in collected.items()}


def study_samples(samples: ScoreSamples) -> ScoreStudy | NotKnown:
    """What the scores mean that were kept of a system."""
    if not any(samples.documents):
        return NotKnown("none of its documents has a score")
    kinds, judged, folds = samples.kept_judged()
    relevant = kinds == RELEVANT
    kept = [judged[relevant], judged[~relevant], samples.kept_others()]
    everything = np.concatenate(kept)
    edges = round_edges(float(everything.min()), float(everything.max()), BINS)
    is_lower_bound = samples.documents[NOT_RELEVANT] < FEWEST_NOT_RELEVANT
    fit = None if is_lower_bound else calibrate_scores(judged, relevant, folds)
    if is_lower_bound:
        groups = _groups(kept, samples.documents, _halving(everything))
    else:
        groups = _groups(kept[:NOT_JUDGED], samples.documents, _tenths(judged))
    if fit:
        groups = _with_fit(groups, judged, fit[1])
    return ScoreStudy(
        system=samples.system,
        edges=edges,
        classes=tuple(
            ScoreClass(kind, documents, _counts(scores, edges), _median(scores))
            for kind, documents, scores in zip(KINDS, samples.documents, kept, strict=True)
        ),
        groups=groups,
        is_lower_bound=is_lower_bound,
        order=_order(samples, NOT_JUDGED if is_lower_bound else NOT_RELEVANT, kept),
        calibration=fit[0] if fit else None,
        unread=samples.unread,
        sampled=samples.thinned or sum(map(len, kept)) < sum(samples.documents),
    )


def _order(samples: ScoreSamples, others: int, kept: Sequence[Floats]) -> Order:
    higher, equal, pairs = samples.order[others]
    return Order(
        KINDS[others],
        pairs,
        _rate(higher, equal, pairs),
        _rate(
            *higher_and_equal(kept[RELEVANT], kept[others]),
            len(kept[RELEVANT]) * len(kept[others]),
        ),
    )


def _counts(scores: Floats, edges: tuple[float, ...]) -> tuple[int, ...]:
    inside = np.clip(scores, edges[0], edges[-1])  # rounding may put the outmost beyond an edge
    return tuple(map(int, np.histogram(inside, edges)[0]))


def _median(scores: Floats) -> float | None:
    return float(np.median(scores)) if len(scores) else None


def _rate(higher: int, equal: int, pairs: int) -> float | None:
    return (higher + equal / 2) / pairs if pairs else None


def _tenths(scores: Floats) -> Floats:
    """The least score of each group; few distinct scores are a group each."""
    distinct = np.unique(scores)
    if len(distinct) <= GROUPS:
        return distinct
    return np.unique(np.quantile(scores, np.arange(GROUPS) / GROUPS, method="higher"))


def _halving(scores: Floats) -> Floats:
    """The least score of groups each of which holds half of what the one below it does."""
    distinct = np.unique(scores)
    if len(distinct) <= GROUPS:
        return distinct
    count = min(GROUPS, max(1, (len(scores) // SMALLEST).bit_length()))
    return np.unique(np.quantile(scores, 1 - 0.5 ** np.arange(count), method="higher"))


def _groups(
    kept: Sequence[Floats], documents: Sequence[int], bounds: Floats
) -> tuple[ScoreGroup, ...]:
    """The scores of these kinds, from one bound to the next.

    Where a kind was sampled, its documents in a group are estimated from those that were kept.
    """
    everything = np.sort(np.concatenate(kept))
    numbers = []
    for scores, count in zip(kept, documents, strict=False):
        found = np.bincount(_group_of(scores, bounds), minlength=len(bounds))
        numbers.append(np.rint(found * (count / max(len(scores), 1))).astype(int))
    ends = np.append(np.searchsorted(everything, bounds[1:], "left"), len(everything)) - 1
    return tuple(
        ScoreGroup(
            float(low),
            float(everything[end]),
            int(total),
            int(relevant),
            _wilson(int(relevant), int(total)),
        )
        for low, end, total, relevant in zip(
            bounds, ends, sum(numbers), numbers[RELEVANT], strict=True
        )
    )


def _with_fit(
    groups: tuple[ScoreGroup, ...], scores: Floats, fitted: Floats
) -> tuple[ScoreGroup, ...]:
    group = _group_of(scores, np.array([each.low for each in groups]))
    return tuple(
        replace(each, fitted=float(fitted[group == number].mean()))
        for number, each in enumerate(groups)
    )


def _group_of(scores: Floats, bounds: Floats) -> NDArray[np.intp]:
    return np.searchsorted(bounds, scores, "right") - 1


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927."""
    low, high = proportion_confint(hits, count, alpha=1 - CONFIDENCE, method="wilson")
    return (float(low) if hits else 0.0), (float(high) if hits < count else 1.0)
