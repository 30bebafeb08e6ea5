"""The section ``corpus``."""

from typing import Annotated, Literal

from rerank_batch.config.base import IN_COLLECTION, USUAL, Location, Section


class CorpusConfig(Section):
    """Where the documents are, and what their columns are called."""

    path: Annotated[Location, IN_COLLECTION]
    """A file, a folder of Parquet files, or a glob."""
    format: Literal["auto", "parquet", "beir"] = "auto"
    """How it is written; auto tells by the name."""
    id: str | None = None
    """The column of ids: doc_id, _id or id in Parquet, _id, doc_id or id in BEIR jsonl."""
    title: str | None = USUAL
    """The column of titles, by default title where there is one; null reads no titles."""
    text: str | None = None
    """The column of texts, by default text."""
    empty: Literal["drop", "error"] = "drop"
    """What becomes of a document without text: drop counts and leaves it out, error ends the job.
    """
