"""Whole jobs whose reranker is a service: nothing lost under faults, bills that agree, the cap."""

from collections import Counter
from typing import Any

import pytest

from rerank_batch.errors import ServiceError, SpendCapReached
from rerank_batch.rerankers import FAMILIES
from rerank_batch.workflows.open_results import open_results
from tests.conftest import run_command, run_json
from tests.services.server import FAULTS, Canned, Rate, score

DOWN = Canned(503, b'{"message": "maintenance"}')

SEED = 1
"""Of the faults: ten of the first fifty requests."""

A_FIFTH = dict.fromkeys(FAULTS, 0.2 / len(FAULTS))

SERVICES = [family for family, each in FAMILIES.items() if each.service]


def settings(tmp_path: Any, family: str, **values: object) -> list[str]:
    reranker = f"{{model: '{family}:any', top_k: 5, service: {{requests_per_minute: 3000}}}}"
    pairs = {"root": tmp_path / "runs", "reranker": reranker, "compute.block_rows": 10, **values}
    return [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]


def rows(tmp_path: Any, run_id: str) -> list[dict[str, Any]]:
    table = open_results(str(tmp_path / "runs"), "test", run_id).arrow().to_table()
    return table.sort_by("qidx").to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("family", SERVICES)
def test_a_job_with_a_fifth_of_the_answers_spoilt_loses_nothing(
    family, serve, built_config, tmp_path
):
    """Every score is the service's own, its bill is ours, and its rate is kept to."""
    server = serve(family, faults=A_FIFTH, seed=SEED, rate=Rate(requests=3000))
    summary = run_json("rerank", built_config, "--run-id", "one", *settings(tmp_path, family))
    found = rows(tmp_path, "one")
    assert summary["queries"] == len(found) == 40
    assert "non_finite_score" not in summary["rejects"]
    # Of 800 pairs some are answered in no form twice in a row: their queries keep their order.
    assert summary["fell_back"] < 10 if family == "llm" else summary["fell_back"] == 0
    (bill,) = summary["cost"]["services"].values()
    billed = server.billed
    assert (bill["search_units"], bill["tokens"], bill["output_tokens"]) == (
        billed.search_units,
        billed.tokens,
        billed.output_tokens,
    )
    assert bill["requests"] == billed.requests
    faults = server.summary()["faults"]
    assert sum(faults.values()) > 5, "there were faults to survive"
    assert bill["unread"] == faults.get("garbage", 0)
    assert server.violations == []
    if family != "llm":
        texts = texts_of(built_config)
        for row in found:
            for hit in row["candidates"]:
                expected = score(row["query"], texts[hit["doc_id"]])
                assert hit["score"] == pytest.approx(expected, abs=1e-6)


def texts_of(config: Any) -> dict[str, str]:
    import pyarrow.parquet as pq
    import yaml

    corpus = pq.read_table(yaml.safe_load(config.read_text())["corpus"]["path"]).to_pylist()
    return {row["doc_id"]: f"{row['title']} {row['text']}" for row in corpus}


@pytest.mark.slow
def test_a_run_stops_at_its_cap_and_goes_on_with_a_higher_one(serve, built_config, tmp_path):
    """40 queries at 0.01 each; the cap stops it in the middle of a block."""
    server = serve("cohere")
    prices = {"cost.prices": "{cohere: {search_unit: 0.01}}", "cost.cap": 0.17}
    given = settings(tmp_path, "cohere", **prices)
    stopped = run_command("rerank", built_config, "--run-id", "one", *given)
    assert stopped.returncode == SpendCapReached.exit_code, stopped.stderr
    assert "cost.cap is 0.17" in stopped.stderr
    assert "--resume one" in stopped.stderr
    assert server.billed.search_units == 17
    given[-1] = "cost.cap=1"
    summary = run_json("rerank", built_config, "--resume", "one", *given)
    assert summary["queries"] == 40
    asked = Counter(call.body["query"] for call in server.calls)
    assert server.billed.search_units == 40
    assert set(asked.values()) == {1}, "no answer is paid for twice"
    assert summary["cost"]["billed"] == pytest.approx(0.40)
    assert summary["cost"]["per_1000_queries"] == pytest.approx(10.0)


@pytest.mark.slow
def test_a_service_that_is_down_stops_the_run_and_the_rest_is_paid_later(
    serve, built_config, tmp_path
):
    server = serve("cohere")
    late = {"reranker.service.attempts": 1}
    server.canned = lambda body: None if len(server.calls) < 15 else DOWN
    stopped = run_command(
        "rerank", built_config, "--run-id", "one", *settings(tmp_path, "cohere", **late)
    )
    assert stopped.returncode == ServiceError.exit_code, stopped.stderr
    assert "HTTP 503" in stopped.stderr
    paid = server.billed.search_units
    assert paid == 15
    server.canned = lambda body: None
    run_json("rerank", built_config, "--resume", "one", *settings(tmp_path, "cohere", **late))
    assert server.billed.search_units == 40
    assert [row["qidx"] for row in rows(tmp_path, "one")] == list(range(40))


@pytest.mark.slow
def test_a_cascade_ends_with_a_service_and_the_next_night_pays_for_nothing(
    serve, built_config, tiny_cross_encoder, tmp_path
):
    server = serve("voyage")
    stages = (
        f"{{top_k: 5, stages: [{{model: 'cross-encoder:{tiny_cross_encoder}', runtime: torch, "
        "depth: 12}, {model: 'voyage:any', depth: 6}]}"
    )
    given = settings(tmp_path, "voyage", **{"reranker": stages, "cache.enabled": "true"})
    first = run_json("rerank", built_config, "--run-id", "one", *given)
    assert [each["pairs"] for each in first["cost"]["models"]] == [40 * 12, 40 * 6]
    assert all(len(call.body["documents"]) == 6 for call in server.calls)
    requests, texts = len(server.calls), texts_of(built_config)
    found = rows(tmp_path, "one")
    for row in found:
        read = [hit for hit in row["candidates"] if hit["stage_scores"][1] is not None]
        assert len(read) == 6
        assert sorted(hit["rank"] for hit in read) == list(range(1, 7))
        for hit in read:
            assert hit["score"] == pytest.approx(
                score(row["query"], texts[hit["doc_id"]]), abs=1e-6
            )
    second = run_json("rerank", built_config, "--run-id", "two", *given)
    assert len(server.calls) == requests
    assert second["cost"]["billed"] == 0
    assert second["cache"]["hit_rate"] == 1
    assert rows(tmp_path, "two") == found
