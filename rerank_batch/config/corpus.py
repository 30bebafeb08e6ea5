"""The section ``corpus``."""

from typing import Annotated, Literal

from rerank_batch.config.base import IN_COLLECTION, USUAL, Location, Section


class CorpusConfig(Section):
    """Where the documents are and what their columns are called.

    ``id``, ``title`` and ``text`` default to doc_id (or _id, or id), title, text in Parquet and to
    _id (or doc_id, or id), title, text in BEIR jsonl. A corpus without a title column needs no
    setting; with ``title: null`` titles are not read.
    """

    path: Annotated[Location, IN_COLLECTION]
    format: Literal["auto", "parquet", "beir"] = "auto"
    id: str | None = None
    title: str | None = USUAL
    text: str | None = None
    empty: Literal["drop", "error"] = "drop"
