"""What a summary says of the files that a command read: their kinds, and what looks wrong."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rerank_batch.config import Config
from rerank_batch.data.clicks import SUFFIXES as CLICK_SUFFIXES
from rerank_batch.data.corpus import SUFFIXES as CORPUS_SUFFIXES
from rerank_batch.data.outcomes import Outcomes
from rerank_batch.data.plan import Plan
from rerank_batch.data.qrels import SUFFIXES as QRELS_SUFFIXES
from rerank_batch.data.qrels import Judgements
from rerank_batch.data.query_log import SUFFIXES as QUERY_SUFFIXES
from rerank_batch.data.text_store import TextStore
from rerank_batch.evaluation.ground_truth import Labels
from rerank_batch.remarks import Remark, lines, unmatched
from rerank_batch.storage import file_kinds
from rerank_batch.storage.layouts import in_words

_SUFFIXES = {
    "corpus": CORPUS_SUFFIXES,
    "queries": QUERY_SUFFIXES,
    "qrels": QRELS_SUFFIXES,
    "clicks": CLICK_SUFFIXES,
}
_LOOKED_UP = 20_000
"""So many documents of judgements are looked up at most, evenly over all."""


def files_read(config: Config, *sections: str) -> dict[str, dict[str, int]]:
    """How many files of which kind each section names.

    Raises:
        InputError, StorageError: see `input_files`.
    """
    return {
        section: file_kinds(getattr(config, section).path, _SUFFIXES[section], section)
        for section in sections
        if getattr(config, section) is not None
    }


def files_line(files: Mapping[str, Mapping[str, int]]) -> str:
    """The same in words."""
    return ", ".join(f"{section} from {in_words(counts)}" for section, counts in files.items())


def as_objects(remarks: Iterable[Remark]) -> list[dict[str, Any]]:
    """Remarks as a summary has them; each once."""
    return [remark.as_json() for remark in dict.fromkeys(remarks)]


def together(
    before: Iterable[Mapping[str, Any]], remarks: Iterable[Remark]
) -> tuple[dict[str, Any], ...]:
    """The remarks of a summary and further ones; each once."""
    return tuple(as_objects((*(Remark(**remark) for remark in before), *remarks)))


def remark_lines(summary: Mapping[str, Any]) -> dict[str, object]:
    """The line of the remarks of a summary, where there are any."""
    remarks = summary.get("remarks") or ()
    return {"remarks": lines(remarks)} if remarks else {}


def of_documents(section: str, what: str, ids: Sequence[str], texts: TextStore) -> list[Remark]:
    """That most ids of documents are none of the corpus."""

    def known(some: Sequence[str]) -> list[str]:
        found = texts.numbers(some)
        return [each for each, number in zip(some, found.tolist(), strict=True) if number >= 0]

    if len(ids) > _LOOKED_UP:
        ids = [ids[place] for place in np.linspace(0, len(ids) - 1, _LOOKED_UP).astype(int)]
    return _some(unmatched(section, what, ids, known, "the corpus"))


def of_labels(labels: Labels | None, plan: Plan, asked: set[str], texts: TextStore) -> list[Remark]:
    """What looks wrong about judgements or clicks; ``asked`` are the ids of the log's queries."""
    if labels is None:
        return []
    section = "qrels" if labels.clicks is None else "clicks"
    found = of_judged_documents(section, labels.qrels, texts)
    if plan.left_out.queries == 0:  # what queries.head leaves out is in the log
        what = "judged queries" if labels.clicks is None else "clicked queries"
        found += of_queries(section, what, labels.qrels, asked, "the log")
    return [*labels.remarks, *found]


def of_outcomes(outcomes: Outcomes | None, known: set[str]) -> list[Remark]:
    """What looks wrong about outcomes; ``known`` are the ids of the judged queries of a run."""
    if outcomes is None:
        return []
    ids = outcomes.table.column("query_id").unique().to_pylist()
    where = "the judged queries of the run"
    return [*outcomes.remarks, *of_queries("outcomes", "queries", ids, known, where)]


def of_judged_documents(section: str, qrels: Judgements, texts: TextStore) -> list[Remark]:
    """That most judged documents are none of the corpus."""
    documents = sorted({document for grades in qrels.values() for document in grades})
    return of_documents(section, "judged documents", documents, texts)


def of_queries(
    section: str, what: str, ids: Iterable[str], known: set[str], where: str
) -> list[Remark]:
    """That most ids of queries are not known."""
    return _some(unmatched(section, what, sorted(set(ids)), known.intersection, where))


def _some(remark: Remark | None) -> list[Remark]:
    return [] if remark is None else [remark]
