"""Loading a model's files: what goes wrong there is the user's to mend, so it is said clearly."""

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
        raise ModelError(f"{folder} does not load as {what}: {error}") from error
