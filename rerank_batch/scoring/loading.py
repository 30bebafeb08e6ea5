"""Loading a model's files: what goes wrong there is the user's to mend, so it is said clearly."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerank_batch.errors import ModelError


@contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever the model libraries raise into `ModelError`, with the folder and the kind.

    They share no base class (the Rust parts raise plain `Exception`), so any exception counts; it
    stays chained as the cause.
    """
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"{folder} does not load as {what}: {' '.join(str(error).split())}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Model libraries report fresh heads and draw bars; what matters of it is in our own words."""
    # Imported late, as most of what loads here has no need of it.
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    logger = logging.getLogger("sentence_transformers")
    logger_level = logger.level
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
        logger.setLevel(logger_level)
