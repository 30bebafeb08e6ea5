"""The gate from end to end: learned on judged queries, proposed, used, and what it then skips."""

import json

import pytest
import yaml

from rerank_batch.errors import ConfigError
from rerank_batch.workflows.open_results import open_results
from tests.conftest import run_command, run_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calibrated(built_config, tmp_path_factory):
    """What `--calibrate-gate` proposes, and a run under the gate that it proposes."""
    root = tmp_path_factory.mktemp("gate")
    given = ("--set", f"root={root}", "--set", "reranker.gate={signal: top1, max_loss: 0.5}")
    learned = run_json("evaluate", built_config, "--calibrate-gate", "--run-id", "all", *given)
    gate = yaml.safe_load(learned["snippet"])["reranker"]["gate"]
    run = run_json(
        "rerank", built_config, "--run-id", "gated", "--set", f"root={root}",
        "--set", f"reranker.gate={json.dumps(gate)}",
    )  # fmt: skip
    return root, learned, gate, run


def test_the_gate_that_was_proposed_skips_the_queries_it_was_measured_on(calibrated):
    root, learned, gate, run = calibrated
    whole, gated = (
        {
            row["query_id"]: row
            for row in open_results(str(root), "test", name).arrow().to_table().to_pylist()
        }
        for name in ("all", "gated")
    )
    skipped = {name for name, row in gated.items() if "gated" in row["flags"]}
    assert run["gated"] == len(skipped) > 0
    assert run["pairs_skipped"] == 20 * len(skipped)
    share = len(skipped & whole.keys()) / len(whole)
    assert share == pytest.approx(learned["signals"]["top1"]["skipped"], abs=0.051)
    for name, row in gated.items():
        top1 = row["candidates"][0]["retrieval_score"]
        assert (name in skipped) == (top1 >= gate["threshold"])
        by_rank = [hit["doc_id"] for hit in sorted(row["candidates"], key=lambda hit: hit["rank"])]
        if name in skipped:
            assert by_rank == [hit["doc_id"] for hit in row["candidates"]]
            assert {hit["score"] for hit in row["candidates"]} == {None}
        elif name in whole:
            before = sorted(whole[name]["candidates"], key=lambda hit: hit["rank"])
            assert by_rank == [hit["doc_id"] for hit in before]


def test_a_gate_without_a_threshold_tells_how_to_get_one(built_config, tmp_path):
    asked = run_command("rerank", built_config, "--set", "reranker.gate={max_loss: 0.01}")
    assert asked.returncode == ConfigError.exit_code
    assert "--calibrate-gate" in asked.stderr


def test_a_run_with_a_gate_is_none_to_learn_from(calibrated, built_config):
    root, *_ = calibrated
    asked = run_command(
        "evaluate", built_config, "--calibrate-gate", "--run", "gated", "--set", f"root={root}"
    )
    assert asked.returncode == ConfigError.exit_code
    assert "had a gate" in asked.stderr
