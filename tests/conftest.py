"""What tests share: tiny models with seeded weights, small collections, one command runner."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from rerank_batch.runs import Run
from rerank_batch.runs.summary import RunTotals
from rerank_batch.storage import Root, inputs, open_root, s3
from tests.chaos.s3_server import S3Server
from tests.support.helpers import write_all

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

BUCKET = "store"

WORDS = tuple(
    """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma
    tau upsilon phi chi psi omega river stone cloud paper engine garden winter summer
    """.split()  # noqa: SIM905
)


def build_tokenizer() -> Any:
    """A BERT tokenizer whose vocabulary is `WORDS`, letters and digits."""
    from transformers import BertTokenizerFast

    pieces = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *pieces]
    tokens += [f"##{piece}" for piece in pieces]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = BertTokenizerFast(vocab=vocab, model_max_length=64)
    assert tokenizer.tokenize("river stone2") == ["river", "stone", "##2"]
    return tokenizer


def bert_config(**extra: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=5 + len(WORDS) + 72,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        **extra,
    )


def write_cross_encoder(folder: Path) -> Path:
    """A random two-layer BERT with one label, as a checkpoint folder."""
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(num_labels=1, initializer_range=0.5))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


def write_encoder(out: Path, bert: Path) -> Path:
    """A random two-layer BERT with mean pooling, as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertModel

    torch.manual_seed(1)
    BertModel(bert_config()).save_pretrained(bert)
    build_tokenizer().save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=64)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(out))
    return out


@pytest.fixture(scope="session")
def tiny_bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("bi-encoder"), tmp_path_factory.mktemp("bert"))


def sentences(count: int, seed: int, words: int = 8) -> list[str]:
    """Deterministic sentences over `WORDS`."""
    import random

    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, words))) for _ in range(count)]


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("collection"))


def write_collection(folder: Path) -> Path:
    """120 documents, 60 log rows of 40 queries with dirt, judgements."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = sentences(120, seed=2, words=20)
    corpus = {
        "doc_id": [f"d{n:03d}" for n in range(120)],
        "title": [WORDS[n % len(WORDS)] for n in range(120)],
        "text": texts,
    }
    pq.write_table(pa.table(corpus), folder / "corpus.parquet")
    asked = sentences(40, seed=3)
    ids = [f"q{n:02d}" for n in range(40)]
    log = {
        "query_id": [*ids, *ids[:20], "x1", "x2", None],
        "query": [*asked, *[text.upper() for text in asked[:20]], "", None, "alpha"],
    }
    pq.write_table(pa.table(log), folder / "log.parquet")
    qrels = {
        "query_id": [ids[n // 2] for n in range(60)],
        "doc_id": [f"d{(n * 7) % 120:03d}" for n in range(60)],
        "relevance": pa.array([1 + n % 3 for n in range(60)], pa.int32()),
    }
    pq.write_table(pa.table(qrels), folder / "qrels.parquet")
    return folder


@pytest.fixture(scope="session")
def config_file(
    tmp_path_factory: pytest.TempPathFactory,
    collection: Path,
    tiny_bi_encoder: Path,
    tiny_cross_encoder: Path,
) -> Path:
    """A configuration of the whole job over the small collection."""
    folder = tmp_path_factory.mktemp("project")
    config = {
        "root": str(folder / "runs"),
        "job": "test",
        "corpus": {"path": str(collection / "corpus.parquet")},
        "queries": {"path": str(collection / "log.parquet")},
        "qrels": {"path": str(collection / "qrels.parquet")},
        "index": {
            "path": str(folder / "index"),
            "encoder": f"sentence-transformers:{tiny_bi_encoder}",
            "runtime": "torch",
            "shards": 3,
        },
        "retrieval": {"depth": 20},
        "reranker": {
            "model": f"cross-encoder:{tiny_cross_encoder}",
            "runtime": "torch",
            "top_k": 5,
        },
        "evaluation": {"measures": ["nDCG@10", "RR@10", "R@20"]},
        "compute": {"block_rows": 4, "cpus": 2},
        # Else most tests would find every score in the cache of the one before.
        "cache": {"enabled": False},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def built_config(config_file: Path) -> Path:
    """The same, with its index built by the command."""
    run_json("build-index", config_file)
    return config_file


@pytest.fixture
def nights(built_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`rerank-batch` over a root of its own, with blocks that are written without any model."""
    config = yaml.safe_load(built_config.read_text("utf-8"))
    config |= {"root": str(tmp_path / "runs"), "qrels": None}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")

    def execute(run: Run, *_: Any) -> RunTotals:
        write_all(run)
        zeros = ("pairs", "judged", "weight", "pairs_per_second", "done_before")
        return RunTotals.from_final(
            {
                "fingerprint": run.spec.fingerprint,
                "queries": run.spec.planned,
                "log_rows": 100,
                "documents": 120,
                "rejects": {},
                "metrics": {},
                "seconds": {"total": 1.0},
                **dict.fromkeys(zeros, 0),
            }
        )

    from rerank_batch.workflows import rerank as job

    monkeypatch.setattr(job, "_execute", execute)

    from jobs.__main__ import app

    def command(*arguments: str) -> Any:
        first, *rest = arguments
        words = [first, str(file), *rest] if first == "rerank" else arguments
        return CliRunner().invoke(app, words)

    command.root = open_root(str(tmp_path / "runs"))  # type: ignore[attr-defined]
    return command


def run_command(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`rerank-batch ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "jobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def run_json(*arguments: object, timeout: float = 240) -> dict[str, Any]:
    """The summary of a command that must succeed."""
    done = run_command(*arguments, "--json", timeout=timeout)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, with this process's environment pointing at it and nothing else."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield s3_server
    forget_clients()


@pytest.fixture
def prefix(store: S3Server) -> str:
    """A place in the bucket that no other test knows."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def bucket(prefix: str) -> Root:
    return open_root(prefix)


# What a bucket does otherwise than a folder is in tests/storage, which always runs on both.
@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    """Both kinds of root; what holds for one has to hold for the other."""
    if request.param == "folder":
        return open_root(str(tmp_path / "root"))
    found: Root = request.getfixturevalue("bucket")
    return found


def forget_clients() -> None:
    """Clients remember the credentials they were made with."""
    s3._client.cache_clear()
    inputs._s3_filesystem.cache_clear()
