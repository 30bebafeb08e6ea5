"""The section ``index``."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from rerank_batch.config.base import Location, ModelText, Section, Words

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
    Mean?", ECIR 2020) with saturation ``k1`` and length normalisation ``b``. Words are runs of two
    or more letters, digits and underscores, without ``stopwords``: those of a language, or a list
    of one's own. ``stemmer`` is a language of Snowball's, for which PyStemmer has to be there.
    """

    k1: float = Field(default=1.2, ge=0, le=10)
    b: float = Field(default=0.75, ge=0, le=1)
    lowercase: bool = True
    stopwords: Annotated[
        StopWords | tuple[str, ...],
        Words(f"a list of words, or one of {', '.join(get_args(StopWords))}", with_value=False),
    ] = "english"
    stemmer: str | None = Field(default=None, pattern="^[a-z]+$")


class IndexConfig(Section):
    """The FAISS index: where it lives, which model encodes, how it is cut.

    Documents are encoded in ``precision`` numbers where that pays, queries always in fp32.
    ``kind`` is Flat (exact), HNSW, IVF, or any FAISS factory string. ``nprobe`` and ``ef_search``
    steer the approximate kinds; the recall measured with them is in the index manifest. With
    ``bm25`` the same documents are searched by their words as well. When the corpus changes, what
    is new goes to a shard of its own and what is gone is masked; a shard of which more than
    ``compact_at`` is masked is written anew.
    """

    path: Location
    encoder: ModelText
    precision: Literal["fp32", "bf16"] = "fp32"
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    kind: str = "Flat"
    shards: int = Field(default=1, ge=1, le=4096)
    max_length: int | None = Field(default=None, ge=8)
    nprobe: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)
    bm25: Bm25Config | None = None
    compact_at: float = Field(default=0.25, ge=0, lt=1)
