"""What all sections share: the frozen base class and the types of their fields."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rerank_batch.config.paths import expanded, expanded_model

RowsOrShare = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]

FilterTerm = tuple[
    str,
    Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"],
    Any,
]


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


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
