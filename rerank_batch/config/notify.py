"""The section ``notify``."""

import re
from typing import Literal

from pydantic import Field, field_validator

from rerank_batch.config.base import Section
from rerank_batch.config.paths import expanded


class NotifyConfig(Section):
    """Who is told how a run of `rerank` ended; changes no results, and its failure fails no run.

    ``command`` is run without a shell and gets one JSON object on its standard input. ``webhook``
    is the name of the environment variable that holds the URL to post the same object to: such URLs
    are secrets. ``on`` says after what: a run that is published, one that a guard kept back, an
    error.
    """

    command: tuple[str, ...] = ()
    webhook: str | None = None
    on: tuple[Literal["success", "guard", "error"], ...] = ("success", "guard", "error")
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    attempts: int = Field(default=3, ge=1, le=10)

    @field_validator("command")
    @classmethod
    def _command_is_a_path(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        """Its first word is one; the others are the command's own."""
        return tuple(expanded(word) if n == 0 else word for n, word in enumerate(command))

    @field_validator("webhook")
    @classmethod
    def _webhook_is_a_variable(cls, webhook: str | None) -> str | None:
        if webhook is not None and not re.match(r"^[A-Z][A-Z0-9_]*\Z", webhook):
            # Not repeated: it may be the URL itself.
            raise ValueError("give the NAME of the environment variable that holds the URL")
        return webhook
