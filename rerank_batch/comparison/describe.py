"""What each system of a comparison is, in a few words."""

from rerank_batch.config import Config, SystemConfig
from rerank_batch.retrieval.fusion import Fusion


def descriptions(config: Config) -> dict[str, str]:
    """What each system is, in a few words for a table."""
    return {name: _describe(config, each) for name, each in config.evaluation.systems.items()}


def _describe(config: Config, system: SystemConfig) -> str:
    if system.run is not None:
        return f"run {system.run}" + (f", {system.system}" if system.system else "")
    if system.trec is not None:
        return f"TREC run {system.trec}"
    computed = config.computing(system)
    found = f"{computed.retrieval.depth} of {_sources(computed)}"
    if computed.reranker is None:
        return found
    gate = " behind a gate" if computed.reranker.gate else ""
    read = [
        f"{scorer.model} ({scorer.depth})" if scorer.depth else scorer.model
        for scorer in computed.reranker.cascade
    ]
    return f"{found}, then {', then '.join(read)}{gate}"


def _sources(config: Config) -> str:
    """What candidates come from, and how it is put together."""
    words = {"dense": config.index.kind, "bm25": "BM25", "given": "given lists"}
    retrieval = config.retrieval
    if len(retrieval.sources) == 1:
        return words[retrieval.sources[0]]
    fusion = Fusion.of(retrieval.fusion, retrieval.sources)
    shares = [
        words[source] + (f" x {weight:g}" if weight != 1 else "")
        for source, weight in zip(retrieval.sources, fusion.weights, strict=True)
    ]
    method = f"RRF {retrieval.fusion.k}"
    if retrieval.fusion.method == "weighted":
        method = f"weighted {retrieval.fusion.normalise}"
    return f"{' + '.join(shares)} ({method})"
