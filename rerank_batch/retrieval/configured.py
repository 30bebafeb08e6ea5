"""How queries are encoded for the index of a configuration."""

from rerank_batch.config import Config
from rerank_batch.index.open import Index
from rerank_batch.retrieval.options import EncoderOptions
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
