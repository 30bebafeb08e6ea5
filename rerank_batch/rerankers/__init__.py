"""Second stage: models that read query and document together. One file per family."""

from rerank_batch.rerankers.registry import (
    FAMILIES,
    Family,
    choose_mode,
    family_of,
    is_listwise,
    load_scorer,
    open_service,
    prompt_fingerprint,
)

__all__ = [
    "FAMILIES",
    "Family",
    "choose_mode",
    "family_of",
    "is_listwise",
    "load_scorer",
    "open_service",
    "prompt_fingerprint",
]
