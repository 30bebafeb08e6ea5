"""Whether the ids of one input are those of another: remarks where most of them match nothing."""

from collections.abc import Iterable, Sequence

import numpy as np

from rerank_batch.data.qrels import Judgements
from rerank_batch.data.text_store import TextStore
from rerank_batch.remarks import Remark, unmatched

_LOOKED_UP = 20_000
"""So many documents of judgements are looked up at most, evenly over all."""


def unmatched_documents(
    section: str, what: str, ids: Sequence[str], texts: TextStore
) -> list[Remark]:
    """A remark where most ids of documents are none of the corpus."""

    def known(some: Sequence[str]) -> list[str]:
        numbers = texts.numbers(some).tolist()
        return [name for name, number in zip(some, numbers, strict=True) if number >= 0]

    if len(ids) > _LOOKED_UP:
        ids = [ids[place] for place in np.linspace(0, len(ids) - 1, _LOOKED_UP).astype(int)]
    return _present(unmatched(section, what, ids, known, "the corpus"))


def unmatched_judged_documents(section: str, qrels: Judgements, texts: TextStore) -> list[Remark]:
    """A remark where most judged documents are none of the corpus."""
    documents = sorted({document for grades in qrels.values() for document in grades})
    return unmatched_documents(section, "judged documents", documents, texts)


def unmatched_queries(
    section: str, what: str, ids: Iterable[str], known: set[str], where: str
) -> list[Remark]:
    """A remark where most ids of queries are not known."""
    return _present(unmatched(section, what, sorted(set(ids)), known.intersection, where))


def _present(remark: Remark | None) -> list[Remark]:
    return [] if remark is None else [remark]
