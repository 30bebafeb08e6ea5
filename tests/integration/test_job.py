"""The whole job by its command line, on a real local Ray with tiny models."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import ir_measures
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import load_config
from rerank_batch.errors import InputsChanged, ModelError, RunConflict
from rerank_batch.runs import Run, latest_run
from rerank_batch.schema import RESULT
from rerank_batch.storage.folder import Folder
from rerank_batch.workflows.open_results import open_results
from tests.conftest import run_command, run_json, sentences
from tests.support.helpers import content, wait_for


@pytest.fixture(scope="module")
def finished(built_config: Path) -> dict:
    """One run of the job, with two logical CPUs."""
    return run_json("rerank", built_config, "--run-id", "undisturbed")


@pytest.fixture(scope="module")
def root(built_config: Path) -> Folder:
    return Folder(load_config(built_config).root)


_RESULT = [field.name for field in RESULT]


def content_of(root: Folder, run_id: str) -> list[str]:
    return content(Run.open(root, run_id))


def test_every_row_of_the_log_is_in_the_results_or_the_rejects(finished, root):
    """63 log rows: 40 queries of which 20 come twice, three bad ones."""
    assert finished["queries"] == 40
    assert finished["rejects"] == {"empty_query": 1, "missing_query_id": 1, "null_query": 1}
    assert finished["weight"] + sum(finished["rejects"].values()) == finished["log_rows"] == 63
    rows = pl.concat(pl.read_parquet(p) for p in Run.open(root, "undisturbed").results_paths())
    assert sorted(rows["qidx"]) == list(range(40))
    assert finished["pairs"] == 40 * 20
    assert set(finished["seconds"]) >= {"plan", "encode", "retrieve", "rerank", "total"}


def test_latest_names_the_run_and_a_second_run_of_the_same_id_is_refused(
    finished, root, built_config
):
    assert latest_run(root, "test").run_id == "undisturbed"
    again = run_command("rerank", built_config, "--run-id", "undisturbed")
    assert again.returncode == RunConflict.exit_code
    assert "complete, with the same inputs" in again.stderr
    other = run_command(
        "rerank", built_config, "--run-id", "undisturbed", "--set", "retrieval.depth=10"
    )
    assert other.returncode == InputsChanged.exit_code
    assert "settings.retrieval.depth was 20, is 10" in other.stderr
    assert "Traceback" not in again.stderr + other.stderr


def test_metrics_are_those_of_trec_eval_on_the_exported_runs(
    finished, root, built_config, tmp_path
):
    config = load_config(built_config)
    judgements = pq.read_table(config.qrels.path).to_pylist()
    qrels = [ir_measures.Qrel(r["query_id"], r["doc_id"], r["relevance"]) for r in judgements]
    for system in ("retrieval", "reranked"):
        out = tmp_path / f"{system}.trec"
        done = run_json(
            "runs", "export", config.root, "undisturbed", "--system", system, "--out", out
        )
        assert done["rows"] == 40 * (20 if system == "retrieval" else 5)
        # The reranked run is exported at its top 5: deeper measures see more in the job.
        names = ("nDCG@10", "RR@10", "R@20") if system == "retrieval" else ("RR@5",)
        measures = [ir_measures.parse_measure(name) for name in names]
        run = list(ir_measures.read_trec_run(str(out)))
        theirs = {str(m): v for m, v in ir_measures.calc_aggregate(measures, qrels, run).items()}
        summary = finished
        if system == "reranked":
            summary = run_json(
                "evaluate", built_config, "--run", "undisturbed",
                "--set", "evaluation.measures=[RR@5]",
            )  # fmt: skip
        assert summary["metrics"][system] == pytest.approx(theirs, abs=1e-6)


def test_evaluate_agrees_with_the_run_and_writes_the_report(finished, built_config):
    summary = run_json("evaluate", built_config, "--run", "latest")
    assert summary["run_id"] == "undisturbed"
    for system, values in finished["metrics"].items():
        assert summary["metrics"][system] == pytest.approx(values)
    report = Path(summary["report"])
    assert "nDCG@10" in report.read_text(encoding="utf-8")
    per_query = pl.read_parquet(report.parent / "metrics.parquet")
    mean = per_query.filter(system="reranked", measure="RR@10")["value"].mean()
    assert mean == pytest.approx(finished["metrics"]["reranked"]["RR@10"])
    assert json.loads((report.parent / "metrics.json").read_text())["judged"] == 30


def test_evaluate_runs_the_judged_queries_and_leaves_latest_alone(finished, built_config, root):
    summary = run_json("evaluate", built_config, "--run-id", "judged-only")
    assert summary["queries"] == summary["judged"] == 30
    # Other queries share the batch, so the last bits may differ.
    assert summary["metrics"]["reranked"] == pytest.approx(
        finished["metrics"]["reranked"], abs=1e-4
    )
    assert latest_run(root, "test").run_id == "undisturbed"


def test_the_results_open_with_polars_and_duckdb(finished):
    """The lines of the README."""
    results = open_results(finished["root"], "test")
    by_polars = results.polars().explode("results").unnest("results").collect()
    assert by_polars.height == 40 * 5
    by_arrow = results.arrow().to_table(columns=["query", "results"])
    assert by_arrow.num_rows == 40
    selected = "query, unnest(results, recursive := true)"
    by_duckdb = duckdb.read_parquet(results.files).select(selected)
    assert by_duckdb.fetchall() == by_polars.select(["query", *_RESULT]).rows()


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 4])
def test_auto_pools_finish_on_any_machine_with_the_same_results(finished, root, built_config, cpus):
    """`finished` ran on 2 logical CPUs; the number of threads may change the last bits."""
    run_id = f"cpus-{cpus}"
    run_json("rerank", built_config, "--run-id", run_id, "--set", f"compute.cpus={cpus}")
    assert_same_rankings(root, "undisturbed", run_id)


@pytest.mark.slow
def test_scorers_are_placed_on_logical_gpus(finished, root, built_config):
    """Two GPU actors where Ray counts two GPUs; torch finds none and says so by using the CPU."""
    summary = run_json(
        "rerank", built_config, "--run-id", "gpus", "--set", "compute.gpus=2", "--set",
        "compute.cpus=4",
    )  # fmt: skip
    assert summary["queries"] == 40
    assert_same_rankings(root, "undisturbed", "gpus")


@pytest.mark.slow
def test_killing_a_scorer_changes_nothing(root, built_config, tmp_path):
    """kill -9 of the reranking actor while most queries are still to score: the same content."""
    asked = [f"{text} {n}" for n, text in enumerate(sentences(240, seed=7))]
    log = pa.table({"query_id": [f"k{n}" for n in range(240)], "query": asked})
    pq.write_table(log, tmp_path / "log.parquet")
    settings = [f"queries.path={tmp_path / 'log.parquet'}", "retrieval.depth=60"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    run_json("rerank", built_config, "--run-id", "left-alone", *overrides)

    command = [sys.executable, "-m", "jobs", "rerank", str(built_config), "--run-id", "killed"]
    with subprocess.Popen(
        [*command, *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as job:
        victim = wait_for(lambda: scorer_of(job.pid), 120)
        wait_for(lambda: root.sizes("runs/killed/commits/"), 120)
        os.kill(victim, signal.SIGKILL)
        assert len(root.sizes("runs/killed/commits/")) < 30, "killed too late to prove anything"
        _, stderr = job.communicate(timeout=240)
        assert job.returncode == 0, stderr.decode()
    assert len(root.sizes("runs/killed/commits/")) == 60
    assert content_of(root, "killed") == content_of(root, "left-alone")


@pytest.mark.slow
def test_weights_that_do_not_load_stop_the_job_with_the_code_of_models(
    built_config, tiny_cross_encoder, tmp_path
):
    """The files are whole but do not fit together: only the actor that loads them can know."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_cross_encoder, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "nonsense"}))
    job = run_command(
        "rerank", built_config, "--set", f"reranker.model=cross-encoder:{broken}"
    )  # fmt: skip
    assert job.returncode == ModelError.exit_code, job.stderr
    assert f"{broken} does not load as a cross-encoder" in job.stderr.replace("\n", "")
    assert "Traceback" not in job.stderr


@pytest.mark.slow
def test_an_approximate_index_says_how_much_it_finds(built_config, tmp_path):
    overrides = ["--set", "index.kind=HNSW", "--set", f"index.path={tmp_path / 'index'}"]
    summary = run_json("build-index", built_config, *overrides)
    assert 0.9 < summary["recall_at_100"] <= 1
    again = run_json("build-index", built_config, *overrides)
    assert not again["built"], "an index that is up to date is left alone"
    assert again["recall_at_100"] == summary["recall_at_100"]
    builds = [set(folders(tmp_path / "index"))]
    for _ in range(2):
        assert run_json("build-index", built_config, *overrides, "--force")["built"]
        builds.append(set(folders(tmp_path / "index")))
    assert [len(each) for each in builds] == [1, 2, 2]
    assert builds[0] < builds[1], "a forced build leaves the files alone that a reader may hold"
    assert not builds[0] & builds[2], "the build before that one is removed"


def folders(place: Path) -> list[str]:
    return [e.name for e in place.iterdir() if e.is_dir() and e.name != "generations"]


def scorer_of(pid: int) -> int | None:
    """Process id of the reranking actor, by the title that Ray gives it."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "MapWorker(MapBatches(rerank))" in title:
            return process.pid
    return None


def assert_same_rankings(root: Folder, one: str, other: str) -> None:
    def rows(run_id: str) -> list[dict]:
        paths = Run.open(root, run_id).results_paths()
        return pl.concat(pl.read_parquet(p) for p in paths).sort("qidx").to_dicts()

    for a, b in zip(rows(one), rows(other), strict=True):
        assert a["query_id"] == b["query_id"]
        assert [hit["doc_id"] for hit in a["candidates"]] == [h["doc_id"] for h in b["candidates"]]
        first, second = ([hit["score"] for hit in x["candidates"]] for x in (a, b))
        assert first == pytest.approx(second, abs=1e-4)
