"""Batch, offline retrieve-then-rerank on Ray Data.

    import rerank_batch as rb

    config = rb.load_config("configs/quickstart.yaml", ["retrieval.depth=30"])
    rb.build_index(config)
    summary = rb.rerank(config)
    summary.metrics["reranked"]

Everything is imported when it is first used: every worker imports this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_batch.config import Config
    from rerank_batch.errors import RerankBatchError
    from rerank_batch.reporter import Reporter, TqdmReporter
    from rerank_batch.runs.summary import RunSummary
    from rerank_batch.workflows.library import (
        build_index,
        evaluate,
        finetune,
        load_config,
        load_finetune_config,
        make_labels,
        open_index,
        rerank,
    )
    from rerank_batch.workflows.load_reranker import Reranker, load_reranker
    from rerank_batch.workflows.open_index import SearchableIndex
    from rerank_batch.workflows.open_results import Results, open_results

__all__ = [
    "Config",
    "Reporter",
    "RerankBatchError",
    "Reranker",
    "Results",
    "RunSummary",
    "SearchableIndex",
    "TqdmReporter",
    "build_index",
    "evaluate",
    "finetune",
    "load_config",
    "load_finetune_config",
    "load_reranker",
    "make_labels",
    "open_index",
    "open_results",
    "rerank",
]

_HOME = {
    "Config": "config",
    "Reporter": "reporter",
    "RerankBatchError": "errors",
    "Reranker": "workflows.load_reranker",
    "Results": "workflows.open_results",
    "RunSummary": "runs.summary",
    "SearchableIndex": "workflows.open_index",
    "TqdmReporter": "reporter",
    "load_reranker": "workflows.load_reranker",
    "open_results": "workflows.open_results",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOME.get(name, 'workflows.library')}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return __all__
