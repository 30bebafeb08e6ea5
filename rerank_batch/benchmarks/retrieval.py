"""The first stage: encoding documents, and searching shards."""

import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from jobs.console import Console
from rerank_batch.config import Config
from rerank_batch.data.corpus import read_corpus
from rerank_batch.index.configured import ENCODER_FAMILIES
from rerank_batch.models.location import model_folder, parse_model


def retrieval(
    documents: int,
    dimension: int,
    queries: int,
    k: int,
    kinds: list[str] | None,
    shards: int,
    rounds: int,
    threads: int,
    console: Console,
) -> None:
    """Search made-up vectors, by plain FAISS and by ours with every kind."""
    from rerank_batch.benchmarks import index_kinds as peers

    stored = peers.make_vectors(documents, dimension, seed=0)
    asked = peers.make_vectors(queries, dimension, seed=1)
    console.note(
        f"{documents:,} vectors of {dimension} made; building {shards} shards of each kind"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = peers.measure(
            Path(folder), stored, asked, kinds or ["Flat"], shards, k, rounds, threads
        )
    table = Table(
        title=f"{documents:,} vectors of {dimension}, {queries:,} queries a call, best {k}, "
        f"{threads} threads",
        title_justify="left",
    )
    table.add_column("system")
    for column in ("queries/s", "range", "to FAISS", f"recall@{k}"):
        table.add_column(column, justify="right")
    for each in found:
        table.add_row(
            each.system,
            f"{each.median:,.0f}",
            f"{each.low:,.0f}-{each.high:,.0f}",
            f"{each.median / found[0].median:.2f}",
            f"{each.recall:.4f}",
        )
    console.result({"documents": documents, "k": k, "systems": [e.to_dict() for e in found]}, table)


def encoding(config: Config, documents: int, rounds: int, threads: int, console: Console) -> None:
    """Encode documents of the configured corpus, by sentence-transformers and in every mode."""
    from rerank_batch.benchmarks import encoding as peers

    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    corpus = read_corpus(config.corpus).documents
    some = np.linspace(0, corpus.num_rows - 1, min(documents, corpus.num_rows)).astype(np.int64)
    rows = corpus.take(some).to_pylist()
    texts = [" ".join(part for part in (row["title"], row["text"]) if part) for row in rows]
    folder = model_folder(encoder.location)
    found = peers.measure(folder, config.index.max_length, texts, rounds, threads, console.note)
    table = Table(
        title=f"{len(texts):,} documents by {encoder}, {threads} threads", title_justify="left"
    )
    table.add_column("system")
    for column in ("documents/s", "to the first", "range", "lowest cosine"):
        table.add_column(column, justify="right")
    for each in found:
        table.add_row(
            each.system,
            f"{each.median:.1f}",
            f"{each.ratio:.2f}",
            f"{each.ratio_low:.2f}-{each.ratio_high:.2f}",
            f"{each.lowest_cosine:.7f}",
        )
    console.result({"documents": len(texts), "systems": [e.to_dict() for e in found]}, table)
