"""Limits on a run: read, held against the numbers, and an exit code for CI."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from rerank_batch.config import load_config
from rerank_batch.errors import ConfigError, InputError, NotGoodEnough, RunConflict
from rerank_batch.evaluation.acceptance import Limit, check_limit, check_no_worse, parse_limit
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.workflows.acceptance import Requirements, prepare
from tests.evaluation.finished import DEPTH, evaluate, row, write_config, write_run
from tests.support.helpers import spec

MEASURES = ("nDCG@10", "RR@10", "P(rel=2)@5")

# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nDCG@10>=0.40", Limit("nDCG@10", ">=", 0.4)),
        (" RR@10 < 1e-1 ", Limit("RR@10", "<", 0.1)),
        ("RR@10<=.5", Limit("RR@10", "<=", 0.5)),
        ("P(rel=2)@5 > 0", Limit("P(rel=2)@5", ">", 0.0)),
    ],
)
def test_limits_are_read(text: str, limit: Limit) -> None:
    assert parse_limit(text, MEASURES) == limit


@pytest.mark.parametrize(
    "text", ["", "nDCG@10", "nDCG@10=0.4", "nDCG@10>=", "nDCG@10>=x", "nDCG@10>=nan",
             "nDCG@10>=inf", "nDCG@10>=>0.4", "nDCG@10>=0.4>=0.3", "nDCG@10==0.4"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no limit; write MEASURE>=VALUE"):
        parse_limit(text, MEASURES)


@pytest.mark.parametrize("text", ["AP>=0.4", ">=0.4", "nDCG>=0.4", "ndcg@10>=0.4"])
def test_a_measure_that_is_not_there_names_those_that_are(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not measured; .* are nDCG@10, RR@10, P\(rel=2\)@5"):
        parse_limit(text, MEASURES)


@pytest.mark.parametrize(
    ("sign", "passed"), [(">=", (0, 1, 1)), (">", (0, 0, 1)), ("<=", (1, 1, 0)), ("<", (1, 0, 0))]
)
def test_limits_hold_at_their_edges(sign: str, passed: tuple[int, ...]) -> None:
    limit = Limit("RR@10", sign, 0.5)
    found = [check_limit(limit, {"RR@10": value}).passed for value in (0.25, 0.5, 0.75)]
    assert found == [bool(each) for each in passed]


# --- no worse than ---------------------------------------------------------------------------


def values(numbers: np.ndarray) -> dict[str, float]:
    return {f"q{n}": float(value) for n, value in enumerate(numbers)}


@pytest.mark.parametrize("seed", range(40))
def test_it_passes_where_a_paired_test_of_being_worse_by_the_margin_is_significant(seed) -> None:
    rng = np.random.default_rng(seed)
    theirs = rng.uniform(size=80)
    ours = theirs - rng.normal(0.01, 0.06, 80)
    margin = rng.uniform(0, 0.04)
    found = check_no_worse("RR", "another", values(ours), values(theirs), margin)
    test = stats.ttest_1samp(theirs - ours, margin, alternative="less")
    assert found.passed == (test.pvalue <= 0.05)
    interval = stats.ttest_1samp(theirs - ours, 0, alternative="less").confidence_interval(0.95)
    assert f"lost at most {max(interval.high, 0):.4f}" in found.numbers


def test_no_difference_that_is_found_is_not_no_difference() -> None:
    """Four queries that scatter: nothing significant, and nothing proven either."""
    ours, theirs = values(np.array([0.1, 0.9, 0.4, 0.6])), values(np.array([0.9, 0.1, 0.5, 0.5]))
    assert not check_no_worse("RR", "another", ours, theirs, 0.005).passed


def test_equal_runs_pass_without_any_margin() -> None:
    same = values(np.linspace(0, 1, 10))
    assert check_no_worse("RR", "another", same, same, 0.0).passed


def test_only_queries_of_both_count() -> None:
    theirs = {"a": 0.5, "b": 0.5, "theirs": 1.0}
    ours = {"a": 0.5, "b": 0.5, "ours": 0.0}
    found = check_no_worse("RR", "another", ours, theirs, 0.0)
    assert found.passed
    assert "from 0.5000 to 0.5000 on 2 queries of both" in found.numbers
    with pytest.raises(InputError, match="share 1 judged queries: too few"):
        check_no_worse("RR", "another", {"a": 1.0}, theirs, 0.1)


# --- the command -----------------------------------------------------------------------------

BETTER = [row(n, 3 + n % 3, 1) for n in range(6)]
WORSE = [row(n, 3 + n % 3, 5 + n % 2) for n in range(6)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs", BETTER, "good")
    write_run(tmp_path / "runs", WORSE, "bad")
    return write_config(tmp_path, BETTER)


def report(config: Path, run_id: str) -> Path:
    return config.parent / "runs" / "runs" / run_id / "report"


def test_limits_that_hold_leave_with_success(config: Path) -> None:
    limits = ("--fail-under", "nDCG@10>=1", "--fail-under", "RR@10>0.9")
    result = evaluate(config, "--run", "good", *limits, "--no-worse-than", "bad")
    assert result.exit_code == 0, result.output
    assert "passed: nDCG@10 >= 1 (nDCG@10 is 1)" in result.output
    assert "passed: nDCG@10 no worse than in run bad by 0.005" in result.output


def test_a_limit_that_does_not_hold_fails_after_everything_is_written(config, tmp_path) -> None:
    file = tmp_path / "result.md"
    limits = ("--fail-under", "nDCG@10>=0.9", "--fail-under", "RR@10>=0.01")
    result = evaluate(config, "--run", "bad", *limits, "--markdown", str(file))
    assert result.exit_code == NotGoodEnough.exit_code == 14
    assert "run bad is not good enough: not nDCG@10 >= 0.9: nDCG@10 is 0.3" in result.output
    assert "not RR@10" not in result.output
    written = json.loads((report(config, "bad") / "metrics.json").read_text())
    assert [check["passed"] for check in written["checks"]] == [False, True]
    assert "<html" in (report(config, "bad") / "report.html").read_text()
    assert "- **failed**: nDCG@10 \\>= 0.9" in file.read_text()


def test_a_worse_run_fails_and_a_margin_lets_it_pass(config: Path) -> None:
    worse = evaluate(config, "--run", "bad", "--no-worse-than", "good")
    assert worse.exit_code == 14
    assert "nDCG@10 went from 1.0000 to 0.3" in worse.output
    wide = evaluate(config, "--run", "bad", "--no-worse-than", "good", "--margin", "0.9")
    assert wide.exit_code == 0, wide.output


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--fail-under", "AP>=1"), ConfigError, "evaluation.measures are nDCG@10, RR@10"),
        (("--no-worse-than", "good"), ConfigError, "that is the run itself"),
        (("--no-worse-than", "nowhere"), RunConflict, "no run nowhere"),
        (("--no-worse-than", "latest"), RunConflict, "has no finished run"),
        (("--markdown", "nowhere/x.md"), ConfigError, "its folder does not exist"),
        (("--calibrate-gate", "--fail-under", "RR@10>=1"), ConfigError, "checks nothing"),
    ],
)
def test_what_cannot_be_checked_is_told_before_anything_is_written(
    config: Path, options: tuple[str, ...], error: type[ConfigError], words: str
) -> None:
    result = evaluate(config, "--run", "good", *options)
    assert result.exit_code == error.exit_code, result.output
    assert words in " ".join(result.output.split())
    assert not report(config, "good").exists()


def test_a_run_that_is_not_finished_is_refused_before_anything_runs(config: Path) -> None:
    Run.create(open_root(str(config.parent / "runs")), "half", spec())
    with pytest.raises(RunConflict, match="run half is not finished"):
        prepare(Requirements(no_worse_than="half"), load_config(config))


def test_metrics_json_and_parquet_hold_depths_and_failures(config: Path) -> None:
    assert evaluate(config, "--run", "bad").exit_code == 0
    summary = json.loads((report(config, "bad") / "metrics.json").read_text())
    depth = summary["depth"]
    assert [each["depth"] for each in depth["rows"]] == [0, 5, 10, DEPTH]
    assert depth["rows"][-1]["values"] == summary["metrics"]["reranked"]
    assert depth["rows"][0]["values"] == summary["metrics"]["retrieval"]
    assert depth["knee"] == 0
    assert "retrieval alone would do" in depth["in_words"]
    assert summary["failures"]["hurt"].keys() == {"q0", "q1", "q3", "q4", "q5"}
    assert summary["failures"]["never_found"]["queries"] == 0
    table = pq.read_table(report(config, "bad") / "depth.parquet")
    assert table.num_rows == 6 * 4
    assert "query number" not in (report(config, "bad") / "metrics.json").read_text()


def test_the_terminal_shows_depths_and_what_they_mean(config: Path) -> None:
    output = evaluate(config, "--run", "good").output
    assert "recall ceiling" in output
    assert "depth: beyond 5 candidates nDCG@10 does not rise, cost rises by 140 %" in output
    assert "failures: never retrieved 0 relevant documents of 0 queries" in output
