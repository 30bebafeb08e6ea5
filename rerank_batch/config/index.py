"""The section ``index``."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from rerank_batch.config.base import Explained, Location, ModelText, Section

StopWords = Literal[
    "none",
    "chinese",
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "korean",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]


class Bm25Config(Section):
    """BM25 shards beside those of FAISS, of the same documents.

    Scores are those of Lucene's variant (Kamphuis, de Vries, Boytsov and Lin, "Which BM25 Do You
    Mean?", ECIR 2020). Words are runs of two or more letters, digits and underscores.
    """

    k1: float = Field(default=1.2, ge=0, le=10)
    """Saturation: how fast another occurrence of a word stops to count."""
    b: float = Field(default=0.75, ge=0, le=1)
    """Length normalisation, from 0 (none) to 1."""
    lowercase: bool = True
    """Whether upper and lower case are the same."""
    stopwords: Annotated[
        StopWords | tuple[str, ...],
        Explained(f"a list of words, or one of {', '.join(get_args(StopWords))}", with_value=False),
    ] = "english"
    """Words that are left out: those of a language, or a list of your own."""
    stemmer: str | None = Field(default=None, pattern="^[a-z]+$")
    """A language of Snowball's; needs PyStemmer."""


class IndexConfig(Section):
    """The FAISS index: where it lives, which model encodes, how it is cut.

    When the corpus changes, new documents go to a shard of their own and deleted ones are masked.
    """

    path: Location
    """The folder or URI of the index."""
    encoder: ModelText
    """The model that encodes queries and documents, `sentence-transformers:LOCATION`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The numbers in which documents are encoded where that pays; queries are always fp32."""
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    """What runs the encoder; auto measures which is faster."""
    kind: str = "Flat"
    """Flat (exact), HNSW, IVF, or any FAISS factory string."""
    shards: int = Field(default=1, ge=1, le=4096)
    """How many parts the index has."""
    max_length: int | None = Field(default=None, ge=8)
    """How many tokens the encoder reads; by default what the model says."""
    nprobe: int | None = Field(default=None, ge=1)
    """How many lists of an IVF index a search reads; the manifest has the measured recall."""
    ef_search: int | None = Field(default=None, ge=1)
    """How many candidates a search of an HNSW index keeps."""
    bm25: Bm25Config | None = None
    """BM25 shards of the same documents; `{}` for the usual settings."""
    compact_at: float = Field(default=0.25, ge=0, lt=1)
    """A shard of which more than this share is masked is written anew."""
