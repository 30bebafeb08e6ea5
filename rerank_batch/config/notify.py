"""The section ``notify``."""

import re
from typing import Literal

from pydantic import Field, field_validator

from rerank_batch.config.base import Section
from rerank_batch.config.paths import expanded


class NotifyConfig(Section):
    """Who learns how a run of `rerank` ended; changes no results, and its failure fails no run."""

    command: tuple[str, ...] = ()
    """A command that is run without a shell and gets one JSON object on its standard input."""
    webhook: str | None = None
    """The name of the environment variable with the URL to post the same object to; such URLs are
    secrets."""
    on: tuple[Literal["success", "guard", "error"], ...] = ("success", "guard", "error")
    """After what: a run that is published, one that a guard kept back, an error."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    """How long the command or the post may take."""
    attempts: int = Field(default=3, ge=1, le=10)
    """How often the post is tried."""

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
