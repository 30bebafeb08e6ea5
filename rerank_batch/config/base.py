"""What all sections share: the frozen base class and the types of their fields."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import core_schema

from rerank_batch.config.paths import expanded, expanded_model


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Explained:
    """What the values of a type may be: an error says this in place of pydantic's own words."""

    sentence: str
    with_value: bool = True

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.custom_error_schema(
            handler(source),
            custom_error_type="words_and_value" if self.with_value else "words",
            custom_error_message=self.sentence,
        )


@dataclass(frozen=True)
class OrElse:
    """What can stand in for a setting that is required: an error says so where it is missing."""

    sentence: str


AUTO_OR_COUNT = Explained("'auto' or a whole number of at least 1")
IN_COLLECTION = OrElse("a collection that has it")

RowsOrShare = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)],
    Explained("a whole number of rows, or a share of them from 0 to below 1"),
]

FilterTerm = tuple[
    str,
    Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"],
    Any,
]


def _refuse_credentials(uri: str) -> str:
    if _CREDENTIALS.match(uri):
        raise ValueError(
            "credentials in a URI are refused; use the environment, a profile or an instance role"
        )
    return uri


_CREDENTIALS = re.compile(r"(?i)^[a-z][a-z0-9+.-]*://([^/]*@|[^/:]+:(?!\d+(/|$)).*@)")

Location = Annotated[str, AfterValidator(expanded), AfterValidator(_refuse_credentials)]
"""A path or URI without credentials in it; ``~`` and ``$VARIABLES`` are expanded."""

ModelText = Annotated[str, AfterValidator(expanded_model)]
"""``family:location``, the location likewise."""

USUAL = "auto"
"""In place of the name of a column: the one of the usual name, where there is one and it fits. Null
is none at all."""
