"""Every job in configs/ runs on a small sample with the real weights of the packaged encoder."""

from pathlib import Path

import pytest

from tests.conftest import run_json

TRAINING = {"finetune", "finetune-sample", "finetune-sample-long"}
"""Configurations of other commands, which have tests of their own."""

CONFIGS = sorted(c for c in Path("configs").glob("*.yaml") if c.stem not in TRAINING)
COMMAND = {
    "quickstart": "rerank",
    "eval": "evaluate",
    "compare": "evaluate",
    "nightly": "rerank",
    "labels-sample": "rerank",
}
OPTIONS = {"nightly": ("--date", "2026-01-03")}
JOB = {
    "corpus.path": "sample/corpus.parquet",
    "queries.path": "sample/query_log",
    "qrels.path": "sample/qrels.parquet",
}
PARTS = {
    "quickstart": JOB,
    "nightly": {**JOB, "queries.path": "sample/query_log/date={yesterday}"},
    "eval": {"collection": "sample"},
    "compare": JOB,
    "labels-sample": JOB,
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    run_json("sample", folder / "sample", "--docs", 150, "--queries", 40)
    return folder


def test_every_configuration_is_here():
    assert {config.stem for config in CONFIGS} == set(COMMAND)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            config, id=config.stem, marks=[] if config.stem == "quickstart" else pytest.mark.slow
        )
        for config in CONFIGS
    ],
)
def test_it_runs_and_reranking_keeps_the_relevant_documents_on_top(config, sample):
    paths = {
        "root": sample / "runs",
        "index.path": sample / "index",
        **{key: sample / part for key, part in PARTS[config.stem].items()},
    }
    overrides = [part for key, path in paths.items() for part in ("--set", f"{key}={path}")]
    run_json("build-index", config, *overrides)
    summary = run_json(COMMAND[config.stem], config, *overrides, *OPTIONS.get(config.stem, ()))
    for system, means in summary["metrics"].items():
        assert means["nDCG@10"] > 0.6, system
    if config.stem == "nightly":
        assert summary["log"]["path"].endswith("/query_log/date=2026-01-02")
        assert summary["left_out"]["queries"] > 0
        assert summary["published"] and all(guard["passed"] for guard in summary["guards"])
