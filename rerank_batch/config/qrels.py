"""The section ``qrels``."""

from typing import Literal

from rerank_batch.config.base import FilterTerm, Location, Section


class QrelsConfig(Section):
    """Judgements: Parquet, jsonl, tsv with or without a heading, or TREC qrels.

    Columns are query_id (or query-id, qid), doc_id (or doc-id, corpus_id, corpus-id, docid) and
    relevance (or score, grade, rel). A grade is a whole number, which may be written 1.0.
    """

    path: Location
    """A file, a folder or a glob."""
    format: Literal["auto", "parquet", "beir", "trec"] = "auto"
    """How it is written; auto tells by the name."""
    filter: tuple[FilterTerm, ...] = ()
    """Conditions `[column, operator, value]` that must all hold."""
