"""The index of a configuration, opened and checked against what it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from rerank_batch.config import Config, IndexConfig, Ingredients
from rerank_batch.config.node_cache import node_cache
from rerank_batch.data.corpus import corpus_fingerprint
from rerank_batch.errors import InputError
from rerank_batch.index.fingerprint import check_made_of, index_fingerprint
from rerank_batch.index.generations import read_manifest
from rerank_batch.index.open import Index, verify_files
from rerank_batch.models.fingerprint import ModelPin, pin_model
from rerank_batch.models.location import parse_model
from rerank_batch.storage import open_root

ENCODER_FAMILIES = ("sentence-transformers",)


@dataclass(frozen=True)
class OpenedIndex:
    """An index whose files are there and that was made of what the configuration says."""

    index: Index
    config: IndexConfig
    encoder: ModelPin
    made_of: Ingredients


def open_generation(config: Config, generations: Mapping[str, str] | None = None) -> Index:
    """The index that the configuration names, not checked yet.

    Of the ``generations`` by where their index lies it is that one, as long as it is there.

    Raises:
        IndexMismatch: there is no index, or its manifest is damaged.
    """
    root = open_root(config.index.path)
    manifest = read_manifest(root, (generations or {}).get(root.uri))
    return Index(root, manifest, node_cache(config.storage))


def open_index(config: Config, generations: Mapping[str, str] | None = None) -> OpenedIndex:
    """The index that the configuration names, checked.

    A run goes on with the generation that it began on, of the ``generations`` by where their index
    lies, as long as it is there: the corpus may be another by now, the texts of the index are not.

    Raises:
        RerankBatchError: it is not there, damaged, made of something else, or too small.
    """
    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    pin, _ = pin_model(encoder.location)
    index = open_generation(config, generations)
    corpus_print = corpus_fingerprint(config.corpus)
    made_of = index_fingerprint(config.index, corpus_print, pin.fingerprint)
    generation = index.manifest.generation
    if generation and generation == (generations or {}).get(index.root.uri):
        made_of["corpus"] = index.manifest.made_of["corpus"]
    check_made_of(index.root, index.manifest, made_of)
    verify_files(index)
    documents = index.manifest.documents
    depths = {"depth": config.retrieval.depth}
    depths |= {f"depths.{source}": depth for source, depth in config.retrieval.depths.items()}
    for name, depth in depths.items():
        if depth > documents:
            raise InputError(
                f"retrieval.{name} ({depth}) is larger than the corpus "
                f"({documents} documents); lower it with --set retrieval.{name}=…"
            )
    return OpenedIndex(index, config.index, pin, made_of)
