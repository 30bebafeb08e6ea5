"""The section ``outcomes``."""

from rerank_batch.config.base import FilterTerm, Location, Section


class OutcomesConfig(Section):
    """What became of queries after retrieval, measured elsewhere: Parquet, a value a row.

    A row has a query, under any of its ids in the log, a system, called as in the report, an
    outcome and its value. Several values of a query, system and outcome count as their mean.
    """

    path: Location
    """A file, a folder of Parquet files, or a glob."""
    query_id: str = "query_id"
    """The column of query ids."""
    system: str = "system"
    """The column of systems."""
    outcome: str = "outcome"
    """The column of names of outcomes."""
    value: str = "value"
    """The column of values."""
    less_is_better: tuple[str, ...] = ()
    """Outcomes of which less is better; of the others more is."""
    filter: tuple[FilterTerm, ...] = ()
    """Conditions `[column, operator, value]` that must all hold."""
