"""The section ``retrieval``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import Location, Section

Source = Literal["dense", "bm25", "given"]


class FusionConfig(Section):
    """How the lists of several sources become one.

    ``rrf``: a document scores the sum over the lists that hold it of weight / (``k`` + its rank
    there) (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009, where k is 60 and weights are 1). ``weighted``:
    the sum of weight times its score, made comparable for every query and source by ``normalise``:
    ``minmax`` puts the list's scores on 0 to 1, ``z`` counts standard deviations from its mean; a
    list that does not hold the document gives it what the last of the list gets (of a list whose
    scores are all alike: 1 to its own and 0 to others, or 0 and -1). A source without a weight in
    ``weights`` has 1.
    """

    method: Literal["rrf", "weighted"] = "rrf"
    k: int = Field(default=60, ge=0)
    normalise: Literal["minmax", "z"] = "minmax"
    weights: dict[Source, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default={})

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> "FusionConfig":
        foreign = {"rrf": "normalise", "weighted": "k"}[self.method]
        usual = type(self).model_fields[foreign].default  # as a configuration written out has it
        if getattr(self, foreign) != usual:
            raise ValueError(f"{foreign} is no setting of method: {self.method}")
        return self


class GivenConfig(Section):
    """Candidates that somebody else found: a TREC run file over the log's query ids, or Parquet.

    Of Parquet, which may be the query log itself, ``documents`` is a column of lists of document
    ids, the best first (by default doc_ids), and ``id`` that of the queries (by default query_id).
    Such a list has no scores: it scores 0, -1, -2, and so on.
    """

    trec: Location | None = None
    parquet: Location | None = None
    id: str | None = None
    documents: str | None = None

    @model_validator(mode="after")
    def _one_file(self) -> "GivenConfig":
        if (self.trec is None) == (self.parquet is None):
            raise ValueError("give either trec or parquet")
        if self.trec is not None and (self.id or self.documents):
            raise ValueError("id and documents are columns of parquet, not of trec")
        return self


class ExcludeConfig(Section):
    """Documents that must not come back, whatever the index holds: takedowns, say.

    Parquet with a column of ids (``id``, by default doc_id), or text with an id a line.
    """

    path: Location
    id: str | None = None


class RetrievalConfig(Section):
    """How many candidates each query takes to the reranker, and where they come from.

    ``sources`` are ``dense`` (the FAISS shards), ``bm25`` (see ``index.bm25``) and ``given`` (lists
    that are there already). Each gives its best of ``depths``, by default ``depth``; of several the
    lists become one by ``fusion``, and the best ``depth`` of it go on, with fused scores. No source
    gives a document of ``exclude``: the next ones take its place.
    """

    depth: int = Field(default=50, ge=1, le=10_000)
    sources: tuple[Source, ...] = Field(default=("dense",), min_length=1)
    depths: dict[Source, Annotated[int, Field(ge=1, le=10_000)]] = Field(default={})
    fusion: FusionConfig = FusionConfig()
    given: GivenConfig | None = None
    exclude: ExcludeConfig | None = None

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
