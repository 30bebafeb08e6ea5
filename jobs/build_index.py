"""Build the index: read the corpus, encode it once in an actor pool, write shards and texts."""

import secrets
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.build_postings import FILE_FIELDS, SHARD_FIELDS, build_postings
from jobs.console import Console, PeakMemory, facts_table
from jobs.inputs import ENCODER_FAMILIES, graphs, node_cache
from jobs.modes import encoder_mode
from rerank_batch.config import Config, digest
from rerank_batch.corpus import (
    Corpus,
    corpus_fingerprint,
    read_corpus,
    shard_bounds,
    write_texts,
)
from rerank_batch.errors import IndexMismatch
from rerank_batch.models import model_fingerprint, model_folder, parse_model
from rerank_batch.pipeline import build_shards, cluster, encode_documents
from rerank_batch.pools import LIGHT_CPUS, Pool, plan_encoding
from rerank_batch.retrieval.index import (
    BM25,
    FORMAT,
    Index,
    IndexFile,
    Manifest,
    ShardEntry,
    check_made_of,
    index_fingerprint,
    publish_manifest,
    read_manifest,
    verify_files,
)
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.run import block_bounds
from rerank_batch.stages import (
    BuildShards,
    BuildTexts,
    EncodeDocuments,
    StageSpec,
    read_vectors,
)
from rerank_batch.storage import NodeCache, Root, Wanted, open_root

BLOCK_DOCUMENTS = 256
RECALL_QUERIES = 200
RECALL_CUTOFF = 100

_VECTORS = pa.schema([("document", pa.int64()), ("vector", pa.list_(pa.float32()))])
_SHARDS = pa.schema([*SHARD_FIELDS, *FILE_FIELDS])


def build_index(config: Config, console: Console, force: bool = False) -> dict[str, Any]:
    """Build the index of a configuration unless it is there already; returns the summary."""
    began = time.perf_counter()
    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    root = open_root(config.index.path)
    root.check_writes()
    encoder_print = model_fingerprint(model_folder(encoder.location))
    made_of = index_fingerprint(config.index, corpus_fingerprint(config.corpus), encoder_print)
    if config.index.bm25 is not None:
        from rerank_batch.retrieval.lexical import check_words

        check_words(config.index.bm25)
    cache = node_cache(config.storage)
    current = _current(root, cache)
    if not force and current and _is_built_from(current, made_of):
        console.note(f"the index at {root.uri} is up to date")
        return _summary(root, current.manifest, {}, built=False)
    vectors_of = {name: part for name, part in made_of.items() if name != BM25}
    if not force and current and _is_built_from(current, vectors_of):
        console.note(f"the vectors at {root.uri} are up to date: BM25 alone is built")
        return _add_postings(config, current, made_of, console)

    corpus = read_corpus(config.corpus)
    documents = corpus.documents.num_rows
    bounds = shard_bounds(documents, config.index.shards)
    # A name of its own: the same index built again must not touch the files that readers hold.
    build = f"{digest(made_of)[:16]}-{secrets.token_hex(4)}"
    texts = _publish_texts(root, build, corpus, bounds)
    dropped = corpus.dropped
    del corpus
    read_seconds = time.perf_counter() - began

    with PeakMemory() as memory, cluster(config.compute, console.verbose) as resources:
        pool = plan_encoding(config.compute, resources.cpus, resources.gpus)
        options = EncoderOptions(
            max_length=config.index.max_length,
            precision=config.index.precision,
            runtime=config.index.runtime,
            threads=pool.threads,
            graphs=graphs(config.storage, encoder_print),
        )
        choice = encoder_mode(root, encoder.location, encoder_print, options, pool, console)
        encode_began = time.perf_counter()
        encode = StageSpec(
            name="encode",
            stage=EncodeDocuments,
            kwargs={
                "encoder": encoder.location,
                "options": replace(options, mode=choice.mode),
                "texts": BuildTexts(root, cache, tuple(f.wanted for f in texts), tuple(bounds)),
            },
            pool=pool,
            output=_VECTORS,
            batch_size=BLOCK_DOCUMENTS,
        )
        encoded = 0
        with console.progress("encoded documents", documents, lambda: encoded):
            blocks = block_bounds(documents, BLOCK_DOCUMENTS)
            for some in encode_documents(blocks, encode, root, build):
                encoded += some
        encode_seconds = time.perf_counter() - encode_began
        build_spec = StageSpec(
            name="build",
            stage=BuildShards,
            kwargs={"root": root, "build": build, "kind": config.index.kind},
            pool=Pool(1, max(LIGHT_CPUS, resources.cpus / 2), threads=max(1, int(resources.cpus))),
            output=_SHARDS,
        )
        shards = [
            IndexFile(key=row["key"], bytes=row["bytes"], sha256=row["sha256"])
            for row in build_shards(bounds, build_spec)
        ]
        postings: list[IndexFile] | list[None] = [None] * len(bounds)
        if config.index.bm25 is not None:
            opened = BuildTexts(root, cache, tuple(f.wanted for f in texts), tuple(bounds))
            postings = build_postings(config.index.bm25, opened, build, resources)

    dimension = int(read_vectors(root, build, 0, 1).shape[1])
    recall, asked = _recall(config, root, build, bounds, cache.fetch(root, _wanted(shards)))
    root.delete(list(root.sizes(f"{build}/vectors/")))
    manifest = Manifest(
        format=FORMAT,
        fingerprint=digest(made_of),
        kind=config.index.kind,
        metric="inner product of unit vectors (cosine)",
        dimension=dimension,
        documents=documents,
        dropped=dropped,
        encoder=str(encoder),
        encoder_mode=choice.to_dict(),
        recall_at_100=recall,
        recall_queries=asked,
        made_of=made_of,
        builds=(build, *(current.manifest.builds[:1] if current else ())),
        shards=tuple(
            ShardEntry(start=start, stop=stop, vectors=vectors, texts=text, postings=words)
            for (start, stop), vectors, text, words in zip(
                bounds, shards, texts, postings, strict=True
            )
        ),
        bm25=made_of.get(BM25),
    )
    publish_manifest(root, manifest)
    seconds = {
        "read": read_seconds,
        "encode": encode_seconds,
        "total": time.perf_counter() - began,
    }
    summary = _summary(root, manifest, seconds, built=True)
    return {**summary, "peak_memory_gb": round(memory.bytes / 2**30, 2)}


def _add_postings(
    config: Config, current: Index, made_of: dict[str, Any], console: Console
) -> dict[str, Any]:
    """Build BM25 shards beside the vectors that are there; returns the summary."""
    began = time.perf_counter()
    settings = config.index.bm25
    if settings is None:
        raise ValueError("no BM25 is configured")
    root, manifest = current.root, current.manifest
    texts = BuildTexts(
        root,
        current.cache,
        tuple(shard.texts.wanted for shard in manifest.shards),
        tuple((shard.start, shard.stop) for shard in manifest.shards),
    )
    with PeakMemory() as memory, cluster(config.compute, console.verbose) as resources:
        files = build_postings(settings, texts, manifest.builds[0], resources)
    shards = zip(manifest.shards, files, strict=True)
    manifest = manifest.model_copy(
        update={
            "fingerprint": digest(made_of),
            "made_of": made_of,
            "bm25": made_of[BM25],
            "shards": tuple(s.model_copy(update={"postings": file}) for s, file in shards),
        }
    )
    publish_manifest(root, manifest)
    seconds = {"total": time.perf_counter() - began}
    summary = _summary(root, manifest, seconds, built=True)
    return {**summary, "peak_memory_gb": round(memory.bytes / 2**30, 2)}


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the summary."""
    kind = summary["kind"] + (" and BM25" if summary["bm25"] else "")
    facts: dict[str, object] = {
        "index": summary["index"],
        "documents": f"{summary['documents']:,} in {summary['shards']} shards ({kind})",
        "dropped": summary["dropped"] or "none",
    }
    if summary["recall_at_100"] is not None:
        facts["recall@100"] = f"{summary['recall_at_100']:.4f} against exact search"
    if summary["seconds"]:
        seconds = summary["seconds"]
        if "encode" in seconds:
            facts["encoding"] = f"{summary['documents'] / seconds['encode']:.0f} documents/s"
        facts["time"] = f"{seconds['total']:.0f} s, peak memory {summary['peak_memory_gb']} GiB"
    console.result(summary, facts_table("Index", facts))


def _current(root: Root, cache: NodeCache) -> Index | None:
    """The index that is there, if one is and it can be read."""
    try:
        return Index(root, read_manifest(root), cache)
    except IndexMismatch:
        return None


def _is_built_from(index: Index, made_of: dict[str, Any]) -> bool:
    try:
        check_made_of(index.root, index.manifest, made_of)
        verify_files(index)
    except IndexMismatch:
        return False
    return True


def _publish_texts(
    root: Root, build: str, corpus: Corpus, bounds: list[tuple[int, int]]
) -> list[IndexFile]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for file in write_texts(corpus.documents, bounds, Path(folder)):
            key = f"{build}/texts/{file.name}"
            stored = root.publish(key, file)
            file.unlink()
            files.append(IndexFile(key=key, bytes=stored.bytes, sha256=stored.sha256))
        return files


def _wanted(files: list[IndexFile]) -> list[Wanted]:
    return [file.wanted for file in files]


def _recall(
    config: Config, root: Root, build: str, bounds: list[tuple[int, int]], files: list[Path]
) -> tuple[float | None, int]:
    """Recall of an approximate index with sampled documents as queries; exact kinds need none."""
    if config.index.kind == "Flat":
        return None, 0
    from rerank_batch.retrieval.shards import SearchOptions, measure_recall, open_shard

    options = SearchOptions(config.index.nprobe, config.index.ef_search)
    opened = [
        open_shard(file, start, options) for file, (start, _) in zip(files, bounds, strict=True)
    ]
    stored = read_vectors(root, build, 0, bounds[-1][1])
    rng = np.random.default_rng(0)
    asked = stored[rng.choice(len(stored), size=min(RECALL_QUERIES, len(stored)), replace=False)]
    return measure_recall(opened, stored, asked, RECALL_CUTOFF), len(asked)


def _summary(
    root: Root, manifest: Manifest, seconds: dict[str, float], built: bool
) -> dict[str, Any]:
    return {
        "index": root.uri,
        "built": built,
        "fingerprint": manifest.fingerprint,
        "kind": manifest.kind,
        "bm25": manifest.bm25,
        "shards": len(manifest.shards),
        "documents": manifest.documents,
        "dimension": manifest.dimension,
        "dropped": manifest.dropped,
        "recall_at_100": manifest.recall_at_100,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
