"""The section ``outcomes``."""

from rerank_batch.config.base import FilterTerm, Location, Section


class OutcomesConfig(Section):
    """What became of queries after retrieval, measured elsewhere: Parquet, a value a row.

    A row says of a query, under any of its ids in the log, and a system what its ``outcome`` was:
    the columns are called query_id, system, outcome and value unless the settings of these names
    say otherwise. Systems are called as in the report. Several values of a query, system and
    outcome count as their mean. More is better, but for the outcomes that ``less_is_better`` names.
    """

    path: Location
    query_id: str = "query_id"
    system: str = "system"
    outcome: str = "outcome"
    value: str = "value"
    less_is_better: tuple[str, ...] = ()
    filter: tuple[FilterTerm, ...] = ()
