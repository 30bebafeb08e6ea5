"""The canonical labels in the row shapes that trainers read.

sentence-transformers takes every column but the label (named label, labels, score or scores) for
an input, in the order of the columns, so ids are left out there
(https://sbert.net/docs/cross_encoder/training_overview.html#dataset-format). FlagEmbedding's jsonl
is described in https://github.com/FlagOpen/FlagEmbedding/tree/master/examples/finetune/reranker,
Tevatron's in https://github.com/texttron/tevatron#training-data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_batch.config import LabelFormat
from rerank_batch.labels.rows import POSITIVE

Row = dict[str, Any]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class FormattedQuery:
    """A query with its labelled documents, positives first; see `rows.DOCUMENT`."""

    query_id: str
    text: str
    documents: Sequence[Document]

    @property
    def positives(self) -> list[Document]:
        """The relevant ones."""
        return [each for each in self.documents if each["role"] == POSITIVE]

    @property
    def negatives(self) -> list[Document]:
        """The others."""
        return [each for each in self.documents if each["role"] != POSITIVE]

    def scored(self) -> "FormattedQuery":
        """Only the documents that the teacher read."""
        read = [each for each in self.documents if each["teacher_score"] is not None]
        return FormattedQuery(self.query_id, self.text, read)


@dataclass(frozen=True)
class Format:
    """A shape: who reads it, and the rows it has of a query.

    ``rows`` is told how many negatives a row has where all must have as many. The order of a row's
    keys counts: it is the order of the columns.
    """

    reader: str
    rows: Callable[[FormattedQuery, int], Iterator[Row]]


def _pairs(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for each in query.documents:
        label = float(each["role"] == POSITIVE)
        yield {"query": query.text, "passage": each["document"], "label": label}


def _scores(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for each in query.scored().documents:
        yield {"query": query.text, "passage": each["document"], "score": each["teacher_score"]}


def _triplets(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for good, bad in _two(query):
        yield {"anchor": query.text, "positive": good["document"], "negative": bad["document"]}


def _tuples(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for good, bad in _many(query, negatives):
        numbered = {f"negative_{n}": each["document"] for n, each in enumerate(bad, start=1)}
        yield {"anchor": query.text, "positive": good["document"], **numbered}


def _listwise(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    if query.positives:
        yield {
            "query": query.text,
            "docs": [each["document"] for each in query.documents],
            "labels": [_grade(each) for each in query.documents],
        }


def _listwise_scores(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    scored = query.scored().documents
    if len(scored) > 1:
        yield {
            "query": query.text,
            "docs": [each["document"] for each in scored],
            "labels": [each["teacher_score"] for each in scored],
        }


def _margin_mse(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for good, bad in _two(query.scored()):
        margin = good["teacher_score"] - bad["teacher_score"]
        texts = {"positive": good["document"], "negative": bad["document"]}
        yield {"query": query.text, **texts, "score": margin}


def _kl(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    for good, bad in _many(query.scored(), negatives):
        numbered = {f"negative_{n}": each["document"] for n, each in enumerate(bad, start=1)}
        scores = [each["teacher_score"] for each in (good, *bad)]
        yield {"query": query.text, "positive": good["document"], **numbered, "scores": scores}


def _flagembedding(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    good, bad = query.positives, query.negatives
    if good and bad:  # FlagEmbedding divides by the number of negatives
        texts = {name: [each["document"] for each in some] for name, some in _sides(good, bad)}
        yield {"query": query.text, **texts}


def _flagembedding_scores(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    scored = query.scored()
    sides = _sides(scored.positives, scored.negatives)
    for row in _flagembedding(scored, negatives):
        scores = {f"{name}_scores": [e["teacher_score"] for e in some] for name, some in sides}
        yield {**row, **scores}


def _tevatron(query: FormattedQuery, negatives: int) -> Iterator[Row]:
    good, bad = query.positives, query.negatives
    if good and bad:
        passages = {
            f"{name}_passages": [
                {"docid": each["doc_id"], "title": "", "text": each["document"]} for each in some
            ]
            for name, some in (("positive", good), ("negative", bad))
        }
        yield {"query_id": query.query_id, "query": query.text, **passages}


def _two(query: FormattedQuery) -> Iterator[tuple[Document, Document]]:
    """Every positive with every negative."""
    for good in query.positives:
        for bad in query.negatives:
            yield good, bad


def _many(query: FormattedQuery, count: int) -> Iterator[tuple[Document, Sequence[Document]]]:
    """Every positive with ``count`` negatives at a time; what is left over is not used."""
    for good in query.positives:
        for start in range(0, len(query.negatives) - count + 1, count):
            yield good, query.negatives[start : start + count]


def _sides(
    good: Sequence[Document], bad: Sequence[Document]
) -> tuple[tuple[str, Sequence[Document]], tuple[str, Sequence[Document]]]:
    return ("pos", good), ("neg", bad)


def _grade(each: Document) -> float:
    """The grade; of a document that nobody judged, what its role says."""
    return float(each["role"] == POSITIVE) if each["label"] is None else float(each["label"])


_ST = "sentence-transformers"

FORMATS: dict[LabelFormat, Format] = {
    "pairs": Format(f"{_ST}: BinaryCrossEntropyLoss", _pairs),
    "scores": Format(f"{_ST}: MSELoss", _scores),
    "triplets": Format(f"{_ST}: MultipleNegativesRankingLoss", _triplets),
    "n-tuples": Format(f"{_ST}: MultipleNegativesRankingLoss", _tuples),
    "listwise": Format(
        f"{_ST}: LambdaLoss, ListNetLoss, ListMLELoss, RankNetLoss (grades)", _listwise
    ),
    "listwise-scores": Format(
        f"{_ST}: ListNetLoss, RankNetLoss (the teacher's raw scores)", _listwise_scores
    ),
    "margin-mse": Format(f"{_ST}: MarginMSELoss", _margin_mse),
    "kl": Format(f"{_ST}: DistillKLDivLoss, MarginMSELoss", _kl),
    "flagembedding": Format("FlagEmbedding", _flagembedding),
    "flagembedding-scores": Format("FlagEmbedding: knowledge_distillation", _flagembedding_scores),
    "tevatron": Format("Tevatron", _tevatron),
}
"""Every shape by its name in ``labels.formats``; a document without a teacher score is left out of
those that need one."""
