"""The section ``answer_check``."""

from pydantic import Field

from rerank_batch.config.base import FilterTerm, Location, ModelText, Section
from rerank_batch.config.service import ServiceConfig


class AnswerCheckConfig(Section):
    """Answers by an LLM from the top of each system's list, graded against reference answers.

    ``model`` writes the answers and ``judge`` grades them, by default the same; both are ``llm:``
    models of one endpoint. ``reference`` is Parquet with the columns query_id and answer, or what
    ``query_id`` and ``answer`` call them; several answers of a query are all right ones. The model
    gets the first ``top`` documents, each cut at ``max_chars``, and writes ``max_tokens`` at most.
    """

    model: ModelText
    judge: ModelText | None = None
    reference: Location
    query_id: str = "query_id"
    answer: str = "answer"
    filter: tuple[FilterTerm, ...] = ()
    top: int = Field(default=5, ge=3, le=10)
    max_chars: int = Field(default=4_000, ge=1)
    max_tokens: int = Field(default=300, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    service: ServiceConfig = ServiceConfig()
