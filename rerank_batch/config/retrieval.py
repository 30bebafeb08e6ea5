"""The section ``retrieval``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import Location, Section

Source = Literal["dense", "bm25", "given"]


class FusionConfig(Section):
    """How the lists of several sources become one."""

    method: Literal["rrf", "weighted"] = "rrf"
    """rrf scores a document by the sum over the lists that hold it of weight / (k + its rank there)
    (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
    Rank Learning Methods", SIGIR 2009); weighted by the sum of weight times its normalised
    score."""
    k: int = Field(default=60, ge=0)
    """The constant of rrf."""
    normalise: Literal["minmax", "z"] = "minmax"
    """How weighted makes scores comparable for every query and source: minmax puts a list's scores
    on 0 to 1, z counts standard deviations from its mean. A list without the document gives it
    what its last one gets (if all scores are alike: 1 to its own and 0 to others, or 0 and -1)."""
    weights: dict[Source, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default={})
    """The weight of each source, by default 1."""

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> "FusionConfig":
        foreign = {"rrf": "normalise", "weighted": "k"}[self.method]
        usual = type(self).model_fields[foreign].default  # as a configuration written out has it
        if getattr(self, foreign) != usual:
            raise ValueError(f"{foreign} is no setting of method: {self.method}")
        return self


class GivenConfig(Section):
    """Candidates of another system: a TREC run file over the log's query ids, or Parquet.

    The lists of Parquet, which may be the query log itself, have no scores: they score 0, -1,
    -2, and so on.
    """

    trec: Location | None = None
    """A TREC run file."""
    parquet: Location | None = None
    """Parquet files with a column of lists."""
    id: str | None = None
    """The column of query ids in Parquet, by default query_id."""
    documents: str | None = None
    """The column of lists of document ids, the best first, in Parquet; by default doc_ids."""

    @model_validator(mode="after")
    def _one_file(self) -> "GivenConfig":
        if (self.trec is None) == (self.parquet is None):
            raise ValueError("give either trec or parquet")
        if self.trec is not None and (self.id or self.documents):
            raise ValueError("id and documents are columns of parquet, not of trec")
        return self


class ExcludeConfig(Section):
    """Documents that no list may hold, whatever the index has: takedowns, say."""

    path: Location
    """Parquet with a column of ids, or text with an id a line."""
    id: str | None = None
    """The column of ids in Parquet, by default doc_id."""


class RetrievalConfig(Section):
    """How many candidates each query takes to the reranker, and where they come from."""

    depth: int = Field(default=50, ge=1, le=10_000)
    """How many candidates go on."""
    sources: tuple[Source, ...] = Field(default=("dense",), min_length=1)
    """dense (the FAISS shards), bm25 (see index.bm25) and given (lists that you have)."""
    depths: dict[Source, Annotated[int, Field(ge=1, le=10_000)]] = Field(default={})
    """How many documents each source gives, by default depth."""
    fusion: FusionConfig = FusionConfig()
    """How the lists of several sources become one; the best depth of it go on, with fused scores.
    """
    given: GivenConfig | None = None
    """The lists of the source given."""
    exclude: ExcludeConfig | None = None
    """Documents that no source gives; the next ones take their places."""

    @model_validator(mode="after")
    def _sources_make_sense(self) -> "RetrievalConfig":
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"a source stands twice: {', '.join(self.sources)}")
        if "given" in self.sources and self.given is None:
            raise ValueError("the source given needs retrieval.given, its lists: {trec: FILE}")
        if not any(self.fusion.weights.get(source, 1) for source in self.sources):
            raise ValueError("every source has the weight 0: nothing would be ranked")
        return self

    def depth_of(self, source: Source) -> int:
        """How many documents a source gives."""
        return self.depths.get(source, self.depth)
