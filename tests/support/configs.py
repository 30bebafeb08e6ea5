"""A small configuration, and how a test changes it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from rerank_batch.config import Config, load_config

BASE: dict[str, Any] = {
    "root": "./.runs",
    "job": "nightly",
    "corpus": {"path": "corpus.parquet"},
    "queries": {"path": "log"},
    "qrels": {"path": "qrels.tsv"},
    "index": {"path": ".index", "encoder": "sentence-transformers:package:minilm"},
    "retrieval": {"depth": 50},
    "reranker": {"model": "cross-encoder:models/small"},
}


def with_value(key: str, value: Any) -> dict[str, Any]:
    """BASE with one dotted key set."""
    raw = deepcopy(BASE)
    *parents, leaf = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return raw


def load(tmp_path: Path, *overrides: str, text: str | None = None) -> Config:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(BASE) if text is None else text)
    return load_config(file, list(overrides))
