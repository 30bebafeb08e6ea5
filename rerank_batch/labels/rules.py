"""Which documents may be negatives: every rule, and which of them keeps a document out.

What nobody judged is no negative for that alone: a retriever finds relevant documents that the
judges never saw. Rules on the teacher's score relative to the positive's are those of NV-Retriever
("positive-aware mining", Moreira et al. 2024, https://arxiv.org/abs/2407.15831): ``share`` is its
TopK-PercPos, for which it found 95 % best, ``margin`` its TopK-MarginPos, ``score`` its TopK-Abs.
A document that was judged is what it was judged to be: no such rule is asked of it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rerank_batch.config import LabelFiltersConfig
from rerank_batch.labels.similarity import Shingles, jaccard, shingles, words


@dataclass
class Text:
    """A document's text with what is compared of it; computed once, when it is asked for."""

    text: str
    shingle: int

    @cached_property
    def key(self) -> str:
        """Equal for texts of the same words in the same order; a blank before and after each."""
        return f" {' '.join(words(self.text))} "

    @cached_property
    def shingles(self) -> Shingles:
        """Every run of ``shingle`` words."""
        return shingles(self.key.split(" ")[1:-1], self.shingle)

    @cached_property
    def probes(self) -> list[str]:
        """The same as they would stand in the key of another text."""
        return [f" {' '.join(shingle)} " for shingle in sorted(self.shingles)]

    def is_near(self, other: "Text", threshold: float) -> bool:
        """Whether the Jaccard similarity of all runs of words is at least the threshold.

        A text that is so near lacks no more than ``1 - threshold`` of this one's: of one more than
        that it has at least one, and a text that has none of them need not be cut up at all.
        """
        enough = int((1 - threshold) * len(self.probes) + _SLACK) + 1
        if not any(probe in other.key for probe in self.probes[:enough]):
            return False
        return jaccard(self.shingles, other.shingles) >= threshold - _SLACK


_SLACK = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A document that may become a negative; ``text`` None: not in the corpus; ``score``: raw."""

    doc_id: str
    text: Text | None
    score: float | None
    rank: int | None


@dataclass(frozen=True)
class Known:
    """What is known of a query: grades by document, which documents are another split's, and its
    positives with their raw scores, None where the teacher did not read one."""

    grades: Mapping[str, float]
    held_out: Collection[str]
    texts: Sequence[Text]
    scores: Sequence[float | None]


@dataclass(frozen=True)
class Rules:
    """The filters with what they need to know: from which grade on a document is relevant, and
    whether scores are logits, so that their sigmoid is what shares and probabilities are of."""

    config: LabelFiltersConfig
    grade: int
    is_logit: bool

    def against(self, known: Known) -> float | None:
        """The raw score of the positive that negatives are held against."""
        scores = [score for score in known.scores if score is not None]
        if not scores:
            return None
        return max(scores) if self.config.against == "highest" else min(scores)

    def reason(self, candidate: Candidate, known: Known, positive: float | None) -> str | None:
        """The first rule that keeps the document out, one of `rows.RULES`; None: it may be one.

        ``positive`` is what `against` says of the query.
        """
        if candidate.doc_id in known.held_out:
            return "held_out"
        grade = known.grades.get(candidate.doc_id)
        if grade is not None and grade > 0:
            return "judged_relevant" if grade >= self.grade else "judged_partly"
        if candidate.text is None:
            return "not_in_corpus"
        if grade is not None:
            return None
        return self._by_score(candidate.score, positive) or self._by_text(candidate.text, known)

    def _by_score(self, score: float | None, positive: float | None) -> str | None:
        if score is None:
            return None
        config = self.config
        if positive is not None:
            if config.share is not None and self._scaled(score) > self._share_of(positive):
                return "share"
            if config.margin is not None and score > positive - config.margin:
                return "margin"
        if config.score is not None and score > config.score:
            return "score"
        if config.probability is not None and self._scaled(score) > config.probability:
            return "probability"
        return None

    def _by_text(self, text: Text, known: Known) -> str | None:
        config = self.config
        if config.exact_duplicate and any(text.key == other.key for other in known.texts):
            return "exact_duplicate"
        near = config.near_duplicate
        if near is not None and any(positive.is_near(text, near) for positive in known.texts):
            return "near_duplicate"
        return None

    def _scaled(self, score: float) -> float:
        return sigmoid(score) if self.is_logit else score

    def _share_of(self, positive: float) -> float:
        """``share`` of the positive's score; of one below 0 that far below it, as
        `sentence_transformers.util.mine_hard_negatives` has its relative margin."""
        value = self._scaled(positive)
        return value - (1 - (self.config.share or 1)) * abs(value)


def sigmoid(score: float) -> float:
    """The probability behind a logit."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else 1 - 1 / (1 + math.exp(score))
