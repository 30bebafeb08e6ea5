"""A run measured against clicks says so everywhere, and never reads the judgements beside them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.evaluation.finished import evaluate, row, write_config, write_run


def test_clicks_stand_in_for_judgements_and_it_is_told(tmp_path: Path) -> None:
    """Judgements call d01 relevant, clicks d05: its place is 5 before and 6 after."""
    rows = [row(n, 12, 1) for n in range(30)]
    write_run(tmp_path / "runs", rows)
    config = write_config(tmp_path, rows)
    shown = [(f"q{n}", f"d{d:02d}", d) for n in range(30) for d in range(1, 11)]
    clicks = {
        "query_id": [query for query, _, _ in shown],
        "doc_id": [document for _, document, _ in shown],
        "position": [place for _, _, place in shown],
        "clicked": [document == "d05" for _, document, _ in shown],
        "count": [200] * len(shown),
    }
    pq.write_table(pa.table(clicks), tmp_path / "clicks.parquet")
    against = (
        "--set",
        "evaluation.labels=clicks",
        "--set",
        f"clicks.path={tmp_path}/clicks.parquet",
    )
    markdown = tmp_path / "result.md"
    report = tmp_path / "runs" / "runs" / "one" / "report"
    done = evaluate(config, "--run", "one", *against, "--markdown", str(markdown))
    assert done.exit_code == 0, done.output
    summary = json.loads((report / "metrics.json").read_text())
    listed = [hit["doc_id"] for hit in rows[0]["candidates"]]
    assert summary["metrics"]["retrieval"]["RR@10"] == 1 / (listed.index("d05") + 1)
    assert summary["clicks"]["clicks"] == 30 * 200
    assert "click labels, not judgements" in summary["labels"]
    page = (report / "report.html").read_text()
    assert "click labels, not judgements" in page
    assert "position bias" in page
    assert "click labels, not judgements" in markdown.read_text()

    evaluate(config, "--run", "one")
    judged = json.loads((report / "metrics.json").read_text())
    assert judged["metrics"]["retrieval"]["RR@10"] == 0.0
    assert judged["clicks"] is None
    assert "click" not in (report / "report.html").read_text()
