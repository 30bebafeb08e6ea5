"""How many files of which kind a command reads for each section of the configuration."""

from rerank_batch.config import Config
from rerank_batch.data.clicks import SUFFIXES as CLICK_SUFFIXES
from rerank_batch.storage import file_kinds
from rerank_batch.storage.layouts import SUFFIXES

_SUFFIXES = {**SUFFIXES, "clicks": CLICK_SUFFIXES}


def file_counts(config: Config, *sections: str) -> dict[str, dict[str, int]]:
    """How many files of which kind each section names.

    Raises:
        InputError, StorageError: see `input_files`.
    """
    return {
        section: file_kinds(getattr(config, section).path, _SUFFIXES[section], section)
        for section in sections
        if getattr(config, section) is not None
    }
