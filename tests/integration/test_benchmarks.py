"""Every benchmark runs and tells what it says it tells; what it finds is for quiet machines."""

import json

import pyarrow.parquet as pq
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
@pytest.mark.parametrize("where", [[], ["--nodes"]], ids=["actors", "nodes"])
def test_more_scorers_give_the_same_and_are_compared_round_by_round(config, where):
    asked = ("--rounds", 1, "--set", "reranker.runtime=torch", "--set", "compute.block_rows=8")
    found = run_json("benchmark", "scaling", config, *asked, *where)
    assert found["same_results"]
    assert (found["pairs"], found["blocks"], found["threads"]) == (800, 5, 1)
    one, two = found["scorers"]
    assert (one["actors"], two["actors"], one["ratio"]) == (1, 2, 1)
    assert two["ratio"] == pytest.approx(two["median"] / one["median"], rel=0.05)
    assert one["scoring"]["median"] > one["median"], "loading a model is not scoring"
    assert two["scoring"]["ratio"] > 0


@pytest.mark.slow
def test_without_any_technique_the_scores_stay_the_same():
    found = run_json("benchmark", "ablation", "--mix", "short", "--pairs", 20, "--rounds", 1)
    assert found["mode"].endswith("fp32")
    assert [each["system"] for each in found["systems"]] == [
        "all techniques",
        "last layer for every token",
        "windows of one query",
        "one pair a batch",
        "texts tokenised for every pair",
        "torch instead of openvino",
        "predict(32, float32)",
    ]
    assert all(each["largest_difference"] < 1e-4 for each in found["systems"])


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


@pytest.mark.slow
def test_an_update_is_compared_with_a_full_build(config):
    found = run_json("benchmark", "update", config, "--documents", 9000, "--share", 0.03)
    assert found["changes"] == {"added": 90, "updated": 90, "deleted": 90, "unchanged": 8820}
    assert 0 < found["update"]["encode"] < found["full"]["encode"]
    assert found["ratio"] > 0


def test_retrieval_is_exact_and_compared_with_plain_faiss():
    asked = ("--documents", 3000, "--dimension", 16, "--queries", 40, "--k", 5, "--rounds", 1)
    found = run_json("benchmark", "retrieval", *asked, "--kind", "Flat", "--kind", "HNSW")
    plain, flat, approximate = found["systems"]
    assert plain["recall"] == flat["recall"] == 1
    assert 0.5 < approximate["recall"] <= 1
    assert all(each["median"] > 0 for each in found["systems"])


@pytest.mark.slow
def test_every_judged_query_is_tested_once_by_a_model_that_has_not_seen_it(
    config, tiny_cross_encoder, tmp_path
):
    run_json("rerank", config)
    tuning = tmp_path / "finetune.yaml"
    settings = {
        "model": f"cross-encoder:{tiny_cross_encoder}",
        "max_length": 48,
        "steps": 4,
        "queries_per_step": 4,
        "documents_per_query": 3,
        "precision": "fp32",
        "dev": {"every": 2},
    }
    tuning.write_text(yaml.safe_dump(settings))
    command = ("benchmark", "folds", config, "--finetune", tuning, "--folds", 2, "--unfiltered")
    found = run_json(*command, "--keep", tmp_path / "folds")
    scores = [
        set(json.loads((tmp_path / "folds" / f"fold-{n}" / kind / "scores.json").read_text()))
        for kind in ("filtered", "unfiltered")
        for n in (1, 2)
    ]
    assert scores[:2] == scores[2:]
    assert not scores[0] & scores[1]
    assert len(scores[0] | scores[1]) == found["queries"]
    for n, tested in enumerate(scores[:2], start=1):
        trained = pq.read_table(tmp_path / f"folds/fold-{n}/filtered/labels/rows/train.parquet")
        assert not tested & set(trained.column("query_id").to_pylist())
    assert set(found["means"]) == {"retrieval", "start", "tuned", "tuned without filters"}
    assert {(gain["system"], gain["over"]) for gain in found["gains"]} > {("tuned", "retrieval")}
    assert {way: each["relevant"] for way, each in found["training"].items()} == {
        "tuned": 0,
        "tuned without filters": 0,
    }
    assert run_json(*command, "--keep", tmp_path / "folds") == found
    few = run_json(*command, "--keep", tmp_path / "folds", "--positives", 1)
    assert few["means"]["retrieval"] == found["means"]["retrieval"], "tested on all judgements"
    assert few["training"]["tuned without filters"]["relevant"] > 0

    tuning.write_text(yaml.safe_dump({**settings, "seed": 1}))
    other = run_json(*command, "--keep", tmp_path / "other", "--set", "labels.seed=1")
    tuning.write_text(yaml.safe_dump(settings))
    both = run_json(*command, "--keep", tmp_path / "folds", "--trainings", 2)
    for system, kind in (("tuned", "filtered"), ("tuned without filters", "unfiltered")):
        first, second, alone = (
            pq.read_table(tmp_path / place / "labels/rows/train.parquet")
            for place in (f"folds/fold-1/{kind}", f"folds/fold-1/{kind}-2", f"other/fold-1/{kind}")
        )
        assert first != second == alone, "the second training is the one with the other seeds"
        for measure, mean in both["means"][system].items():
            once, again = (each["means"][system][measure] for each in (found, other))
            assert mean == pytest.approx((once + again) / 2)
        trained = [each["training"][system]["negatives"] for each in (found, other)]
        assert both["training"][system]["negatives"] == sum(trained)


@pytest.mark.slow
def test_a_rehearsal_measures_four_sizes_and_checks_its_lines_on_two(config, tmp_path):
    asked = (
        "--documents",
        6400,
        "--queries",
        640,
        "--keep",
        tmp_path,
        "--set",
        "cache.enabled=true",
    )
    found = run_json("benchmark", "rehearsal", config, *asked)
    nights = found["nights"]
    assert [night["documents"] for night in nights] == [100, 400, 1600, 6400]
    assert [night["queries"] for night in nights] == [10, 40, 160, 640]
    for night in nights:
        reranked = night["queries"] - night["gated"]
        assert night["pairs"] == reranked * found["depth"]
        assert 0 < night["again_pairs"] < night["pairs"], "most was known from the night before"
        assert {"encode", "retrieve", "rerank", "assemble"} <= night["cores"].keys()
    assert [check["documents"] for check in found["checks"]] == [100, 6400]
    assert run_json("benchmark", "rehearsal", config, *asked) == found
