"""The evaluation's table: fits a terminal, decides by the corrected test, says what it cannot."""

import json
import re

import numpy as np
import pytest

from jobs.console import Console
from jobs.tables.evaluation import show
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.failures.study import FailureGroup, Failures
from rerank_batch.evaluation.ground_truth import GroundTruth
from rerank_batch.evaluation.report.headline import measure_rows, p_text
from rerank_batch.evaluation.segments.study import study_segments
from rerank_batch.remarks import NotKnown
from rerank_batch.schema import SYSTEMS
from rerank_batch.workflows.evaluate import Evaluation

MEASURES = ("nDCG@10", "Success@5", "R@50")


@pytest.fixture
def comparison() -> Comparison:
    """6,980 queries: nDCG@10 surely better, Success@5 by chance alone, R@50 of two copies."""
    rng = np.random.default_rng(0)
    queries = [f"q{number}" for number in range(6_980)]
    before = rng.uniform(0, 0.5, len(queries))
    after = before + rng.normal(0.02, 0.2, len(queries))
    coins = rng.integers(0, 2, (2, len(queries)))
    values = {
        system: {"nDCG@10": gains, "Success@5": flips.astype(float), "R@50": np.full(6_980, 0.5)}
        for system, gains, flips in (
            ("retrieval", before, coins[0]),
            ("reranked", after, coins[1]),
        )
    }
    texts = tuple("" for _ in queries)
    return Comparison(MEASURES, SYSTEMS, tuple(queries), texts, np.ones(6_980), values)


def test_the_table_fits_100_columns_and_metrics_hold_everything(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = measure_rows(comparison)
    rows = json.loads(json.dumps([row.to_json() for row in measured]))
    assert [row["outcome"] for row in rows] == ["better", "undecided", "undecided"]
    for row in rows:
        assert row["difference"] == pytest.approx(row["value"] - row["baseline"])
        assert row["comparisons"] == 2, "the copies cannot be decided, whatever they do"
        assert row["wins"] + row["ties"] + row["losses"] == row["queries"] == 6_980
    assert rows[0]["p_value"] < rows[0]["corrected_p_value"] < 0.05
    assert rows[0]["interval"][0] < rows[0]["difference"] < rows[0]["interval"][1]
    assert {"effect_size", "t_test_p_value", "detectable", "doubt"} < set(rows[0])

    monkeypatch.setenv("COLUMNS", "100")
    nothing = FailureGroup()
    evaluation = Evaluation(
        run_id="run-1",
        final={"pairs": 349_000},
        root="",
        report="report.html",
        ground_truth=GroundTruth({}, None),
        comparison=comparison,
        rows=measured,
        systems={},
        missing={},
        depth=NotKnown("it had no reranker"),
        failures=Failures("nDCG@10", (), (), nothing, 0, nothing),
        outcomes=None,
        checks=(),
        segments=study_segments(comparison, comparison.weights, {}),
        scores={},
        gate=NotKnown("it had no reranker"),
        costs={},
        remarks=(),
    )
    show(evaluation, Console())
    printed = capsys.readouterr().out
    first_table = printed.partition("└")[0]
    lines = [line for line in first_table.splitlines() if line.startswith("│")]
    assert len(lines) == 3, "a row that is wider than the terminal wraps"
    assert all(len(line) <= 100 for line in lines)
    assert re.search(r"nDCG@10 .*< 0.001 .* better", lines[0])
    assert f" {p_text(rows[1]['corrected_p_value'])} " in lines[1]
    assert "corrected by Holm over this table" in printed
    assert re.search(r"Success@5: The difference can be chance: these 6,980 queries can", printed)
    assert "R@50: These 6,980 queries are unchanged, so there is nothing to decide." in printed
