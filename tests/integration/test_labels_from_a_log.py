"""Labels straight from a log, an index and a teacher: the run that is mined is made on the way."""

from pathlib import Path

import pytest
import yaml

from rerank_batch.runs import Run, verify_run
from rerank_batch.storage import open_root
from tests.conftest import run_json


def files(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in (out / "rows").rglob("*.parquet")}


@pytest.mark.slow
def test_labels_straight_from_a_log_an_index_and_a_teacher(built_config, tmp_path):
    settings = yaml.safe_load(built_config.read_text())
    settings["root"] = str(tmp_path / "runs")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    split = ("--set", "labels.split.dev=0.4", "--set", "labels.split.test=0")
    asked = ("--set", "labels.source=teacher", *split, "--run-id", "mine")

    card = run_json("make-labels", config, "--out", tmp_path / "new", "--run", "new", *asked)
    assert card["source"]["run"] == "mine-source"
    assert card["source"]["teacher"]["model"] == settings["reranker"]["model"]
    assert card["leak_check"]["passed"]
    assert sum(card["rows"].values()) > 0
    root = open_root(settings["root"])
    assert verify_run(Run.open(root, "mine-source")).faults == []
    latest = list(root.sizes("jobs/"))
    assert latest == ["jobs/test-labels/latest.json"], "a run to be mined is not what readers get"

    again = run_json("make-labels", config, "--out", tmp_path / "again", "--run", "new", *asked)
    assert again["run"] == card["run"]
    assert files(tmp_path / "again") == files(tmp_path / "new")
