"""The index job without Ray and without a model: stages are called where they are.

A document's vector is drawn with the digest of its text as the seed, so it depends on nothing else:
what is left to differ between an update and a full build is what the update does.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rerank_batch.workflows.build_index
import rerank_batch.workflows.build_postings
import rerank_batch.workflows.index_steps
import rerank_batch.workflows.update_index
from jobs.console import Console
from rerank_batch import schema
from rerank_batch.config import Config, parse_config
from rerank_batch.index.generations import read_manifest
from rerank_batch.index.open import Index
from rerank_batch.pipeline.index_stages import BuildTexts, write_vectors
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.retrieval.sources import SourceUse, open_source
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.storage import NodeCache, Root, open_root
from rerank_batch.storage import folder as storage_folder

DIMENSION = 8
ENCODED: list[str] = []
"""Every text that was encoded, until somebody clears it."""


def vector_of(text: str) -> np.ndarray:
    """A unit vector; texts that begin alike have the same, so that there are ties."""
    seed = int.from_bytes(blake2b(text[:5].encode(), digest_size=4).digest())
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Encode:
    """In the place of `EncodeDocuments`."""

    def __init__(self, encoder: str, options: Any, texts: BuildTexts, threads: int = 1) -> None:
        self._texts = texts.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        texts = self._texts.contents(table.column("document").to_numpy())
        ENCODED.extend(texts)
        vectors = [vector_of(text).tolist() for text in texts]
        return table.append_column(schema.VECTOR, pa.array(vectors, pa.list_(pa.float32())))


def _build_shards(bounds: Sequence[tuple[int, int]], spec: StageSpec) -> list[dict[str, Any]]:
    stage = spec.stage(**spec.kwargs, threads=1)
    rows = [{"shard": n, "start": start, "stop": stop} for n, (start, stop) in enumerate(bounds)]
    return [stage(pa.Table.from_pylist([row])).to_pylist()[0] for row in rows]


def _encode_documents(
    blocks: Sequence[tuple[int, int]], spec: StageSpec, root: Root, build: str
) -> Iterator[int]:
    stage = spec.stage(**spec.kwargs, threads=1)
    for start, stop in blocks:
        write_vectors(root, build, stage(pa.table({"document": np.arange(start, stop)})))
        yield stop - start


@contextmanager
def _cluster(*_: Any) -> Iterator[Cluster]:
    yield Cluster(cpus=2, gpus=0)


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Call stages here."""
    patch.setattr(rerank_batch.workflows.build_index, "cluster", _cluster)
    patch.setattr(rerank_batch.workflows.update_index, "cluster", _cluster)
    patch.setattr(rerank_batch.workflows.index_steps, "build_shards", _build_shards)
    patch.setattr(rerank_batch.workflows.build_postings, "build_shards", _build_shards)
    patch.setattr(rerank_batch.workflows.index_steps, "encode_documents", _encode_documents)
    patch.setattr(rerank_batch.workflows.index_steps, "EncodeDocuments", Encode)
    # Many small files: what reaches the disk when is tested elsewhere.
    patch.setattr(storage_folder, "_sync", lambda _: None)
    choice = Choice(Mode("torch", "fp32"), {})
    patch.setattr(rerank_batch.workflows.index_steps, "encoder_mode", lambda *_: choice)


def write_corpus(folder: Path, documents: Mapping[str, str]) -> Path:
    """A corpus of titles that are all the same, in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = list(documents)
    table = pa.table({"doc_id": ids, "title": ["t"] * len(ids), "text": list(documents.values())})
    pq.write_table(table, folder / "corpus.parquet")
    return folder / "corpus.parquet"


def configured(folder: Path, model: Path, index: str = "index", **settings: Any) -> Config:
    """A configuration over the corpus in ``folder``; ``settings`` are those of the index."""
    return parse_config(
        {
            "root": str(folder / "runs"),
            "corpus": {"path": str(folder / "corpus.parquet")},
            "index": {
                "path": str(folder / index),
                "encoder": f"sentence-transformers:{model}",
                "bm25": {"stopwords": "none"},
                **settings,
            },
        }
    )


def build(config: Config, **how: bool) -> dict[str, Any]:
    """Run the job; the object that ``--json`` gives."""
    return rerank_batch.workflows.build_index.build_index(config, Console(), **how).to_json()


def opened(config: Config) -> Index:
    """The index that the configuration names."""
    root = open_root(config.index.path)
    return Index(root, read_manifest(root), NodeCache(Path(config.index.path) / ".cache", 10**9))


def found(
    index: Index, queries: Sequence[str], depth: int, excluded: Sequence[int] = (), **how: int
) -> dict[str, list[list[tuple[str, float]]]]:
    """By source, and for every query: ids and scores, the best first."""
    texts = index.texts()
    table = pa.table(
        {
            schema.QUERY: list(queries),
            schema.VECTOR: pa.array([vector_of(query).tolist() for query in queries]).cast(
                pa.list_(pa.float32())
            ),
        }
    )
    lists = {}
    for source in ("dense", "bm25"):
        if source == "bm25" and index.manifest.bm25 is None:
            continue
        use = SourceUse(source, depth, excluded=tuple(excluded), **how)  # type: ignore[arg-type]
        hits = open_source(use, index, 1).find(table, depth)
        lists[source] = [
            list(zip(texts.ids(hit.documents), hit.scores.tolist(), strict=True)) for hit in hits
        ]
    return lists
