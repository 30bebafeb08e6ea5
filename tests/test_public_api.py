"""The library without the command line, as a notebook uses it: one process, everything in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import rerank_batch

NOTEBOOK = """
import importlib.machinery, io, json, os, signal, sys

finder = importlib.machinery.PathFinder
find = finder.find_spec

def find_no_terminal(name, path=None, target=None):
    if name.split(".")[0] in ("jobs", "typer", "rich"):
        return None
    return find(name, path, target)

finder.find_spec = staticmethod(find_no_terminal)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
handlers = {each: signal.getsignal(each) for each in SIGNALS}
environment = dict(os.environ)

import rerank_batch as rb

out = sys.argv[2]
config = rb.load_config(sys.argv[1], ["retrieval.depth=15"])
index = rb.build_index(config)
notes = io.StringIO()
summary = rb.rerank(config, rb.TqdmReporter(notes), run_id="one")
again = rb.rerank(config, run_id="one")
report = rb.evaluate(config, run="latest")
hits = rb.open_index(config).search(["river stone", "cloud"], k=3)
reranker = rb.load_reranker(config.reranker.model)
scores = reranker.score("river stone", ["a river and a stone", "paper"])
labels = rb.make_labels(config, out)
results = rb.open_results(config.root, config.job)

assert {each: signal.getsignal(each) for each in handlers} == handlers, "a signal handler"
by_imports = ("KMP_", "TORCH", "_RJEM_", "RAY_CLIENT_MODE")  # torch, polars, Ray: once imported
changed = {
    k: v for k, v in os.environ.items() if environment.get(k) != v and not k.startswith(by_imports)
}
assert not changed, changed
print(json.dumps({
    "run_id": summary.run_id,
    "published": summary.published,
    "metrics": summary.metrics["reranked"],
    "rejects": summary.rejects,
    "pairs": sum(model.pairs for model in summary.cost.models),
    "again": again.metrics["reranked"],
    "evaluated": report.to_json()["metrics"]["reranked"],
    "hits": [[hit.doc_id for hit in of_query] for of_query in hits],
    "scores": [float(score) for score in scores],
    "rows": results.arrow().count_rows(),
    "labels": labels["out"],
    "notes": notes.getvalue(),
}))
"""


def test_a_notebook_does_the_whole_job_without_the_command_line(
    config_file: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(config_file.read_text("utf-8"))
    config |= {"root": str(tmp_path / "runs"), "index": {**config["index"], "path": str(tmp_path)}}
    config["labels"] = {"formats": ["pairs"], "split": {"dev": 0.2, "test": 0}}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(file), str(tmp_path / "labels")],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(rerank_batch.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # nothing else is printed
    found = json.loads(line)
    assert found["run_id"] == "one" and found["published"]
    assert found["metrics"] == found["again"]
    assert found["evaluated"] == pytest.approx(found["metrics"])
    assert [len(hits) for hits in found["hits"]] == [3, 3]
    assert len(found["scores"]) == 2 and found["pairs"] > 0 and found["rows"] > 0
    assert "run one: " in found["notes"]


def test_every_public_name_is_there_and_nothing_heavy_is_imported_for_them() -> None:
    code = "import sys, rerank_batch; print([m for m in ('ray', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in rerank_batch.__all__:
        assert getattr(rerank_batch, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'rerun'"):
        _ = rerank_batch.rerun
