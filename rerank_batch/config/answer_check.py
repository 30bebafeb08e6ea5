"""The section ``answer_check``."""

from pydantic import Field

from rerank_batch.config.base import FilterTerm, Location, ModelText, Section
from rerank_batch.config.service import ServiceConfig


class AnswerCheckConfig(Section):
    """Answers by an LLM from the top of each system's list, graded against reference answers.

    Both models are of the family ``llm:`` and of one endpoint. Several reference answers of a
    query are all right ones.
    """

    model: ModelText
    """The LLM that writes the answers."""
    judge: ModelText | None = None
    """The LLM that grades them, by default the same."""
    reference: Location
    """Parquet with the reference answers."""
    query_id: str = "query_id"
    """Its column of query ids."""
    answer: str = "answer"
    """Its column of answers."""
    filter: tuple[FilterTerm, ...] = ()
    """Conditions `[column, operator, value]` that must all hold."""
    top: int = Field(default=5, ge=3, le=10)
    """How many documents of a list the model gets."""
    max_chars: int = Field(default=4_000, ge=1)
    """How many characters of each document it gets."""
    max_tokens: int = Field(default=300, ge=1)
    """How many tokens an answer may have."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """How freely the model writes."""
    service: ServiceConfig = ServiceConfig()
    """How the endpoint is called."""
