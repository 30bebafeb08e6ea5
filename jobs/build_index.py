"""Build the index: read the corpus, encode it once in an actor pool, write shards and texts."""

import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.console import Console, PeakMemory, facts_table
from jobs.inputs import ENCODER_FAMILIES
from rerank_batch.config import Config, digest
from rerank_batch.corpus import corpus_fingerprint, read_corpus, shard_bounds, write_texts
from rerank_batch.errors import IndexMismatch
from rerank_batch.models import model_fingerprint, model_folder, parse_model
from rerank_batch.pipeline import build_shards, cluster, encode_documents
from rerank_batch.pools import LIGHT_CPUS, Pool, plan_encoding
from rerank_batch.retrieval.index import (
    FORMAT,
    Manifest,
    ShardEntry,
    check_made_of,
    index_fingerprint,
    publish_manifest,
    read_manifest,
    verify_files,
)
from rerank_batch.run import block_bounds
from rerank_batch.stages import BuildShards, EncodeDocuments, StageSpec, read_vectors
from rerank_batch.storage import sha256_file

BLOCK_DOCUMENTS = 256
RECALL_QUERIES = 200
RECALL_CUTOFF = 100

_VECTORS = pa.schema([("document", pa.int64()), ("vector", pa.list_(pa.float32()))])
_SHARDS = pa.schema(
    [("shard", pa.int64()), ("start", pa.int64()), ("stop", pa.int64()), ("sha256", pa.string())]
)


def build_index(config: Config, console: Console, force: bool = False) -> dict[str, Any]:
    """Build the index of a configuration unless it is there already; returns the summary."""
    began = time.perf_counter()
    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    encoder_print = model_fingerprint(model_folder(encoder.location))
    made_of = index_fingerprint(config.index, corpus_fingerprint(config.corpus), encoder_print)
    folder = Path(config.index.path)
    if not force and _is_current(folder, made_of):
        console.note(f"the index at {folder} is up to date")
        return _summary(folder, read_manifest(folder), {}, built=False)

    corpus = read_corpus(config.corpus)
    documents = corpus.documents.num_rows
    bounds = shard_bounds(documents, config.index.shards)
    # A name of its own: the same index built again must not touch the files that readers hold.
    build = folder / f"{digest(made_of)[:16]}-{secrets.token_hex(4)}"
    vectors, shards = build / "vectors", build / "shards"
    vectors.mkdir(parents=True)
    shards.mkdir()
    texts = write_texts(corpus.documents, bounds, build / "texts")
    dropped = corpus.dropped
    del corpus
    read_seconds = time.perf_counter() - began

    with PeakMemory() as memory, cluster(config.compute, console.verbose) as resources:
        pool = plan_encoding(config.compute, resources.cpus, resources.gpus)
        encode_began = time.perf_counter()
        encode = StageSpec(
            name="encode",
            stage=EncodeDocuments,
            kwargs={
                "encoder": encoder.location,
                "max_length": config.index.max_length,
                "texts": [str(file.resolve()) for file in texts],
                "bounds": bounds,
            },
            pool=pool,
            output=_VECTORS,
            batch_size=BLOCK_DOCUMENTS,
        )
        with console.progress("encoded documents", documents, lambda: _encoded(vectors)):
            encode_documents(block_bounds(documents, BLOCK_DOCUMENTS), encode, vectors.resolve())
        encode_seconds = time.perf_counter() - encode_began
        build_spec = StageSpec(
            name="build",
            stage=BuildShards,
            kwargs={
                "vectors": str(vectors.resolve()),
                "shards": str(shards.resolve()),
                "kind": config.index.kind,
            },
            pool=Pool(1, max(LIGHT_CPUS, resources.cpus / 2), threads=max(1, int(resources.cpus))),
            output=_SHARDS,
        )
        digests = build_shards(bounds, build_spec)

    dimension = int(np.load(next(iter(sorted(vectors.glob("*.npy")))), mmap_mode="r").shape[1])
    recall, asked = _recall(config, bounds, shards, vectors)
    shutil.rmtree(vectors)
    manifest = Manifest(
        format=FORMAT,
        fingerprint=digest(made_of),
        kind=config.index.kind,
        metric="inner product of unit vectors (cosine)",
        dimension=dimension,
        documents=documents,
        dropped=dropped,
        encoder=str(encoder),
        recall_at_100=recall,
        recall_queries=asked,
        shards=tuple(
            ShardEntry(
                start=start,
                stop=stop,
                vectors=f"{build.name}/shards/{number:05d}.faiss",
                vectors_sha256=digests[number],
                texts=f"{build.name}/texts/{number:05d}.arrow",
                texts_sha256=sha256_file(texts[number]),
            )
            for number, (start, stop) in enumerate(bounds)
        ),
    )
    publish_manifest(folder, manifest, made_of)
    seconds = {
        "read": read_seconds,
        "encode": encode_seconds,
        "total": time.perf_counter() - began,
    }
    summary = _summary(folder, manifest, seconds, built=True)
    return {**summary, "peak_memory_gb": round(memory.bytes / 2**30, 2)}


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the summary."""
    facts: dict[str, object] = {
        "index": summary["index"],
        "documents": f"{summary['documents']:,} in {summary['shards']} shards ({summary['kind']})",
        "dropped": summary["dropped"] or "none",
    }
    if summary["recall_at_100"] is not None:
        facts["recall@100"] = f"{summary['recall_at_100']:.4f} against exact search"
    if summary["seconds"]:
        seconds = summary["seconds"]
        facts["encoding"] = f"{summary['documents'] / seconds['encode']:.0f} documents/s"
        facts["time"] = f"{seconds['total']:.0f} s, peak memory {summary['peak_memory_gb']} GiB"
    console.result(summary, facts_table("Index", facts))


def _is_current(folder: Path, made_of: dict[str, Any]) -> bool:
    try:
        manifest = read_manifest(folder)
        check_made_of(folder, made_of)
        verify_files(folder, manifest)
    except IndexMismatch:
        return False
    return True


def _encoded(vectors: Path) -> int:
    """Documents whose vectors are on disk; the last block may be counted a little short."""
    return len(list(vectors.glob("*.npy"))) * BLOCK_DOCUMENTS


def _recall(
    config: Config, bounds: list[tuple[int, int]], shards: Path, vectors: Path
) -> tuple[float | None, int]:
    """Recall of an approximate index with sampled documents as queries; exact kinds need none."""
    if config.index.kind == "Flat":
        return None, 0
    from rerank_batch.retrieval.shards import SearchOptions, measure_recall, open_shard

    options = SearchOptions(config.index.nprobe, config.index.ef_search)
    opened = [
        open_shard(shards / f"{number:05d}.faiss", start, options)
        for number, (start, _) in enumerate(bounds)
    ]
    stored = read_vectors(vectors, 0, bounds[-1][1])
    rng = np.random.default_rng(0)
    asked = stored[rng.choice(len(stored), size=min(RECALL_QUERIES, len(stored)), replace=False)]
    return measure_recall(opened, stored, asked, RECALL_CUTOFF), len(asked)


def _summary(
    folder: Path, manifest: Manifest, seconds: dict[str, float], built: bool
) -> dict[str, Any]:
    return {
        "index": str(folder),
        "built": built,
        "fingerprint": manifest.fingerprint,
        "kind": manifest.kind,
        "shards": len(manifest.shards),
        "documents": manifest.documents,
        "dimension": manifest.dimension,
        "dropped": manifest.dropped,
        "recall_at_100": manifest.recall_at_100,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
