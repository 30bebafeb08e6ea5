"""The section ``clicks``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import Explained, FilterTerm, Location, Section


class PropensityConfig(Section):
    """How likely a document at a position is looked at, relative to the best place."""

    model: Literal["power", "table"] = "power"
    """power is (1/position) to the power of eta (Joachims, Swaminathan and Schnabel, "Unbiased
    Learning-to-Rank with Biased Feedback", WSDM 2017); table lists the probabilities."""
    eta: Annotated[
        Literal["estimate"] | Annotated[float, Field(ge=0, le=5)],
        Explained("'estimate' or a number from 0 to 5"),
    ] = 1.0
    """The exponent of the power model; estimate takes it from the log, where the same document was
    shown for the same query at several positions."""
    table: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """The probabilities of positions 1, 2, …"""
    clip: float = Field(default=10.0, ge=1, allow_inf_nan=False)
    """Clicks are divided by the probability; no click counts more than this."""

    @model_validator(mode="after")
    def _one_model(self) -> "PropensityConfig":
        if (self.model == "table") != bool(self.table):
            raise ValueError("model: table and a table of probabilities go together")
        if self.table and "eta" in self.model_fields_set:
            raise ValueError("eta belongs to the power model, not to a table")
        return self


class ClicksConfig(Section):
    """A click log with its impressions, as Parquet: what was shown where, and whether clicked.

    A pair of query and document is labelled if it was shown at least ``min_impressions`` times
    and its positions make that ``min_examinations`` expected looks. Its grade is how many of
    ``grades`` the lower bound, at ``confidence``, of its estimated attractiveness reaches.
    """

    path: Location
    """A file, a folder of Parquet files, or a glob."""
    id: str | None = None
    """The column of query ids, by default query_id."""
    text: str | None = None
    """The column of query texts, for a log without ids (by default query, where there is no
    query_id); texts match as they do when queries are deduplicated."""
    document: str | None = None
    """The column of document ids, by default doc_id."""
    position: str | None = None
    """The column of positions, counted from 1."""
    clicked: str | None = None
    """The column that is true or 1 for an impression that was clicked, false or 0 for one that was
    not; the log needs both."""
    count: str | None = None
    """The column that says how many such impressions a row stands for."""
    filter: tuple[FilterTerm, ...] = ()
    """Conditions `[column, operator, value]` that must all hold."""
    propensity: PropensityConfig = PropensityConfig()
    """How likely each position is looked at."""
    min_impressions: int = Field(default=10, ge=1)
    """A pair that was shown less often has no label."""
    min_examinations: float = Field(default=1.0, ge=0)
    """A pair with fewer expected looks has no label."""
    confidence: float = Field(default=0.95, ge=0.75, lt=1)
    """The confidence of the lower bound that gives the grade."""
    grades: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.3, 0.6), min_length=1
    )
    """The attractiveness from which on a pair has grade 1, 2, …"""

    @model_validator(mode="after")
    def _makes_sense(self) -> "ClicksConfig":
        if self.id and self.text:
            raise ValueError("give id or text: clicks are joined with queries by one of them")
        if list(self.grades) != sorted(set(self.grades)):
            raise ValueError(f"grades must rise from one to the next: {list(self.grades)}")
        return self
