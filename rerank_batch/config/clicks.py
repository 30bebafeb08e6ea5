"""The section ``clicks``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import FilterTerm, Location, Section, Words


class PropensityConfig(Section):
    """How likely a document at a position is looked at, relative to the best place.

    ``power``: (1/position) to the power of ``eta`` (Joachims, Swaminathan and Schnabel, "Unbiased
    Learning-to-Rank with Biased Feedback", WSDM 2017); ``estimate`` takes eta from the log itself,
    where the same document was shown for the same query at several positions. ``table``: the
    probabilities of positions 1, 2, …. Clicks are divided by them, and no
    click counts more than ``clip``.
    """

    model: Literal["power", "table"] = "power"
    eta: Annotated[
        Literal["estimate"] | Annotated[float, Field(ge=0, le=5)],
        Words("'estimate' or a number from 0 to 5"),
    ] = 1.0
    table: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    clip: float = Field(default=10.0, ge=1, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_model(self) -> "PropensityConfig":
        if (self.model == "table") != bool(self.table):
            raise ValueError("model: table and a table of probabilities go together")
        if self.table and "eta" in self.model_fields_set:
            raise ValueError("eta belongs to the power model, not to a table")
        return self


class ClicksConfig(Section):
    """A click log with its impressions, as Parquet: what was shown where, and whether clicked.

    ``id`` and ``document`` default to query_id and doc_id. A log without ids is joined with the
    queries by their text: ``text`` names that column (by default query, where there is no
    query_id), and queries match as they do when they are deduplicated. ``position`` counts from 1.
    ``clicked`` is true or 1 for an impression that was clicked, false or 0 for one that was not;
    both kinds have to be there. A row stands for ``count`` such impressions where there is that
    column.

    A pair of query and document is labelled if it was shown at least ``min_impressions`` times and
    its positions make that ``min_examinations`` expected looks. Its grade is how many of ``grades``
    the lower bound, at ``confidence``, of its estimated attractiveness reaches.
    """

    path: Location
    id: str | None = None
    text: str | None = None
    document: str | None = None
    position: str | None = None
    clicked: str | None = None
    count: str | None = None
    filter: tuple[FilterTerm, ...] = ()
    propensity: PropensityConfig = PropensityConfig()
    min_impressions: int = Field(default=10, ge=1)
    min_examinations: float = Field(default=1.0, ge=0)
    confidence: float = Field(default=0.95, ge=0.75, lt=1)
    grades: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.3, 0.6), min_length=1
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "ClicksConfig":
        if self.id and self.text:
            raise ValueError("give id or text: clicks are joined with queries by one of them")
        if list(self.grades) != sorted(set(self.grades)):
            raise ValueError(f"grades must rise from one to the next: {list(self.grades)}")
        return self
