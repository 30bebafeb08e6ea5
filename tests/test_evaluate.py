"""The evaluation's table: fits a terminal, decides by the corrected test, says what it cannot."""

import json
import re

import numpy as np
import pytest

from jobs.console import Console
from jobs.evaluate import as_json, measure_rows, show
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.report import p_text

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
        system: {
            query: dict(zip(MEASURES, (float(gain), float(coin), 0.5), strict=True))
            for query, gain, coin in zip(queries, gains, flips, strict=True)
        }
        for system, gains, flips in (
            ("retrieval", before, coins[0]),
            ("reranked", after, coins[1]),
        )
    }
    return Comparison(MEASURES, values["retrieval"], values["reranked"], {}, {})


def test_the_table_fits_100_columns_and_metrics_hold_everything(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(json.dumps([as_json(row) for row in measure_rows(comparison)]))
    assert [row["outcome"] for row in rows] == ["better", "undecided", "undecided"]
    for row in rows:
        assert row["difference"] == pytest.approx(row["reranked"] - row["retrieval"])
        assert row["comparisons"] == 3
        assert row["wins"] + row["ties"] + row["losses"] == row["queries"] == 6_980
    assert rows[0]["p_value"] < rows[0]["corrected_p_value"] < 0.05
    assert rows[0]["interval"][0] < rows[0]["difference"] < rows[0]["interval"][1]
    assert {"effect_size", "t_test_p_value", "detectable", "doubt"} < set(rows[0])

    monkeypatch.setenv("COLUMNS", "100")
    summary = {
        "judged": 6_980,
        "comparison": rows,
        "run_id": "run-1",
        "report": "report.html",
        "depth": {"refused": "it had no reranker"},
        "failures": {
            "never_found": {"queries": 0, "documents": 0, "found_nothing": 0},
            "pushed_down": {"queries": 0, "documents": 0},
        },
        "checks": [],
    }
    show(summary, Console())
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    assert len(lines) == 3, "a row that is wider than the terminal wraps"
    assert all(len(line) <= 100 for line in lines)
    assert re.search(r"nDCG@10 .*< 0.001 .* better", lines[0])
    assert rows[1]["p_value"] < rows[1]["corrected_p_value"]
    assert f" {p_text(rows[1]['corrected_p_value'])} " in lines[1]
    assert "corrected by Holm over this table" in printed
    assert re.search(r"Success@5: The difference can be chance: these 6,980 queries can", printed)
    assert "R@50: These 6,980 queries are unchanged, so there is nothing to decide." in printed
