"""The sources of retrieval as stages need them, and the lists of one that is given."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rerank_batch.config import Config, Source, digest
from rerank_batch.errors import InputError
from rerank_batch.retrieval.fusion import Found, Fusion
from rerank_batch.retrieval.index import Index
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.tables import fingerprint_files
from rerank_batch.trec_run import SUFFIXES, read_run

_NAMED = 5


@dataclass(frozen=True)
class Given:
    """The lists of the source ``given`` by query id, and what identifies them."""

    lists: Mapping[str, Found]
    fingerprint: str


def read_given(config: Config, index: Index) -> Given | None:
    """The lists that the configuration gives as a source; None where it gives none.

    Raises:
        InputError: no run file, or one with documents that are not in the corpus.
    """
    if config.retrieval.given is None or "given" not in config.retrieval.sources:
        return None
    path = config.retrieval.given.trec
    rankings = read_run(path)
    ids = sorted({document for ranking in rankings.values() for document, _ in ranking})
    numbers = dict(zip(ids, index.texts().numbers(ids).tolist(), strict=True))
    if unknown := [each for each in ids if numbers[each] < 0]:
        raise InputError(
            f"retrieval.given: {len(unknown):,} of the {len(ids):,} documents of {path} are not in "
            f"the corpus, first {', '.join(unknown[:_NAMED])}"
        )
    lists = {
        query: Found(
            np.array([numbers[document] for document, _ in ranking], np.int64),
            np.array([score for _, score in ranking], np.float32),
        )
        for query, ranking in rankings.items()
    }
    return Given(lists, digest(fingerprint_files(path, SUFFIXES, "retrieval.given")))


def source_use(config: Config, source: Source, depth: int, given: Given | None) -> SourceUse:
    """A source of the configuration, to a depth."""
    if source == "dense":
        return SourceUse(source, depth, config.index.nprobe, config.index.ef_search)
    return SourceUse(source, depth, given=given.lists if given and source == "given" else None)


def fusion_of(config: Config) -> Fusion | None:
    """How the sources of the configuration are fused; None where there is one."""
    sources = config.retrieval.sources
    return Fusion.of(config.retrieval.fusion, sources) if len(sources) > 1 else None
