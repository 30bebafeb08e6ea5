"""The retrieval of a configuration as its stages take it."""

from dataclasses import replace

from rerank_batch.config import Config, Source
from rerank_batch.index.open import Index
from rerank_batch.retrieval.excluded import Excluded
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.given import Given
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.scoring.graphs import graphs
from rerank_batch.scoring.modes import Choice, Mode


def query_encoder_options(config: Config, index: Index) -> EncoderOptions:
    """Queries are encoded as the documents of the index were, but always in float32."""
    manifest = index.manifest
    mode = Choice.from_dict(manifest.encoder_mode).mode
    return EncoderOptions(
        max_length=config.index.max_length,
        mode=Mode(mode.runtime, "fp32"),
        graphs=graphs(config.storage, manifest.made_of["encoder"]),
    )


def source_use(
    config: Config, source: Source, depth: int, given: Given | None, excluded: Excluded
) -> SourceUse:
    """A source of the configuration, to a depth."""
    if source == "given":
        return SourceUse(source, depth, given=given.lists if given else None)
    use = SourceUse(source, depth, excluded=excluded.documents)
    if source == "dense":
        use = replace(use, nprobe=config.index.nprobe, ef_search=config.index.ef_search)
    return use


def fusion_of(config: Config) -> Fusion | None:
    """How the sources of the configuration are fused; None where there is one."""
    sources = config.retrieval.sources
    return Fusion.of(config.retrieval.fusion, sources) if len(sources) > 1 else None
