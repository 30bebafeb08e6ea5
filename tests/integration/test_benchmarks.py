"""Every benchmark runs and tells what it says it tells; what it finds is for quiet machines."""

import pytest
import yaml

from tests.conftest import run_json


@pytest.fixture(scope="module")
def config(built_config, tmp_path_factory):
    """The same index with a root of its own."""
    folder = tmp_path_factory.mktemp("benchmarks")
    settings = yaml.safe_load(built_config.read_text())
    settings["root"] = str(folder / "runs")
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.slow
def test_estimate_tells_pairs_hours_and_money_and_leaves_nothing(config, tmp_path):
    asked = ("--queries", 8, "--set", "cost.per_hour=3.6", "--set", f"root={tmp_path}")
    found = run_json("benchmark", "estimate", config, *asked)
    assert found["queries"] == 40
    assert found["pairs"] == 40 * 20
    assert 0 < found["start_seconds"] / 3600 < found["hours"] < 1
    assert found["cost"] == pytest.approx(3.6 * found["hours"])
    assert found["currency"] == "USD"
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.slow
def test_the_second_night_says_the_same(config):
    found = run_json("benchmark", "nightly", config, "--set", "reranker.runtime=openvino")
    assert found["same_results"]
    assert found["pairs"] == 800
    assert 10 < found["scored_pairs"] < 80


@pytest.mark.slow
def test_the_plain_loop_gives_what_the_job_gives(config):
    found = run_json("benchmark", "overhead", config, "--set", "reranker.runtime=openvino")
    assert found["same_results"]
    assert found["overhead"] > 0


@pytest.mark.slow
def test_formats_are_compared_on_the_judged_queries(config):
    settings = ("--set", "reranker.runtime=openvino", "--allow", "int8")
    found = run_json("benchmark", "formats", config, *settings)["formats"]
    assert set(found) == {"fp32", "int8"}
    assert found["fp32"]["churn"] == found["fp32"]["changed"] == 0
    assert set(found["int8"]["metrics"]) == {"nDCG@10", "RR@10", "R@20"}


@pytest.mark.slow
def test_encoding_is_compared_with_sentence_transformers(config):
    found = run_json("benchmark", "encoding", config, "--documents", 40, "--rounds", 1)["systems"]
    assert [each["system"] for each in found][:3] == [
        "SentenceTransformer.encode(batch_size=32)",
        "ours, openvino fp32",
        "ours, torch fp32",
    ]
    assert all(each["lowest_cosine"] > 1 - 1e-5 for each in found[:3])


def test_retrieval_is_exact_and_compared_with_plain_faiss():
    asked = ("--documents", 3000, "--dimension", 16, "--queries", 40, "--k", 5, "--rounds", 1)
    found = run_json("benchmark", "retrieval", *asked, "--kind", "Flat", "--kind", "HNSW")
    plain, flat, approximate = found["systems"]
    assert plain["recall"] == flat["recall"] == 1
    assert 0.5 < approximate["recall"] <= 1
    assert all(each["median"] > 0 for each in found["systems"])
