"""The day of a night, filled in where a configuration has a template for it."""

import datetime
import re
from typing import Any

from rerank_batch.config.root import Config
from rerank_batch.errors import ConfigError


def dated(config: Config, day: datetime.date | None = None) -> Config:
    """The configuration with the templates of its query log filled in; see `QueriesConfig`.

    One without templates is returned as it is.

    Raises:
        ConfigError: a template that is none.
    """
    queries = config.queries
    if queries is None:
        return config
    day = day or queries.date or datetime.datetime.now(datetime.UTC).date()
    path = _fill_in(queries.path, day, "queries.path")
    if unknown := re.search(r"\{[^{}]*\}", path):
        raise ConfigError(
            f"queries.path: {unknown.group()} is no date; {{date}} and {{yesterday}} are, "
            "with {yesterday:%Y/%m/%d} in another form"
        )
    terms = tuple(
        (column, operator, _fill_in(value, day, "queries.filter"))
        for column, operator, value in queries.filter
    )
    if (path, terms) == (queries.path, queries.filter):
        return config
    filled = {"path": path, "filter": terms, "date": day}
    return config.model_copy(update={"queries": queries.model_copy(update=filled)})


def _fill_in(value: Any, day: datetime.date, where: str) -> Any:
    """A value of the log's section with the dates that it asks for."""
    if isinstance(value, (list, tuple)):
        return type(value)(_fill_in(each, day, where) for each in value)
    if not isinstance(value, str):
        return value

    def written(match: re.Match[str]) -> str:
        meant = day if match["which"] == "date" else day - datetime.timedelta(days=1)
        form = match["form"] or "%Y-%m-%d"
        if wrong := re.sub(r"%[YymdjbBaAGVu]", "", form).count("%"):
            raise ConfigError(
                f"{where}: {match.group()} has {wrong} sign(s) % that are no part of a date; "
                "%Y, %m, %d and the like are"
            )
        return meant.strftime(form)

    return _TEMPLATE.sub(written, value)


_TEMPLATE = re.compile(r"\{(?P<which>date|yesterday)(?::(?P<form>[^{}]*))?\}")
