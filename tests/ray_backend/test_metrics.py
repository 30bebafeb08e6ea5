"""Metrics: what is committed counts once, Ray exports it, the dashboard asks for nothing else."""

import importlib.util
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.util import metrics as ray_metrics

from rerank_batch.ray_backend.metrics import METRICS, RunMetrics, run_sums

DASHBOARD = Path(__file__).parents[2] / "infra" / "grafana" / "rerank-batch.json"

SUMS = {
    "queries": 40.0,
    "pairs.1": 800.0,
    "pairs.2": 80.0,
    "cached_pairs.1": 300.0,
    "flag.gated": 4.0,
    "tokens": 9_000.0,
    "padding_tokens": 70.0,
    "spent.2": 0.5,
    "judged": 3.0,
}


class Recorded:
    """Stands in for Ray's metrics: the last value of each name."""

    values: ClassVar[dict[str, float]] = {}

    def __init__(self, name: str, help: str, tag_keys: tuple[str, ...]) -> None:
        self.name = name
        assert help.endswith(".")

    def set_default_tags(self, tags: dict[str, str]) -> None:
        assert tags == {"rerank_job": "nightly", "run_id": "run-1"}

    def inc(self, value: float) -> None:
        assert value > 0
        self.values[self.name] = self.values.get(self.name, 0.0) + value

    def set(self, value: float) -> None:
        self.values[self.name] = value


@given(st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=20, deadline=None)
def test_counters_end_at_the_sums_of_the_commits_however_often_they_are_told(
    shares: list[float],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_metrics, "Counter", Recorded)
        patch.setattr(ray_metrics, "Gauge", Recorded)
        Recorded.values = {}
        metrics = RunMetrics("nightly", "run-1")
        for share in [*sorted(shares), 1.0, 1.0]:
            part = {name: share * value for name, value in SUMS.items()}
            metrics.update(run_sums(part, share * 3, int(share * 10), (10, 43)))
    assert Recorded.values == pytest.approx(
        {
            "rerank_batch_blocks_done": 10,
            "rerank_batch_queries": 40,
            "rerank_batch_rejects": 3,
            "rerank_batch_pairs": 880,
            "rerank_batch_cache_hits": 300,
            "rerank_batch_gate_skips": 4,
            "rerank_batch_tokens": 9_000,
            "rerank_batch_padding_tokens": 70,
            "rerank_batch_cost": 0.5,
            "rerank_batch_blocks_planned": 10,
            "rerank_batch_queries_planned": 43,
        }
    )


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = dashboard["panels"]
    assert {"uid", "title", "schemaVersion", "templating", "time"} <= set(dashboard)
    assert len({panel["id"] for panel in panels}) == len(panels)
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    assert set(re.findall(r"\bray_\w+", asked)) == {metric.exported for metric in METRICS}
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) <= variables
    for selector in re.findall(r"\{(rerank_job[^}]*)\}", asked):
        assert selector == 'rerank_job=~"$job",run_id=~"$run"'
    assert asked.count("(") == asked.count(")")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.slow
def test_ray_exports_them(tmp_path: Path) -> None:
    """By the agent of a real node, as Prometheus would read it."""
    needed = ("aiohttp", "opencensus", "prometheus_client")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        pytest.skip(f"Ray exports no metrics without ray[default]: {', '.join(missing)} missing")
    import ray

    from rerank_batch.config import ComputeConfig
    from rerank_batch.ray_backend.cluster import cluster

    with cluster(ComputeConfig(cpus=1)):
        metrics = RunMetrics("nightly", "run-1", per_hour=3600.0)
        metrics.update(run_sums(SUMS, 3, 10, (10, 43)))
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        found: dict[str, float] = {}
        deadline = time.monotonic() + 60
        while len(found) < len(METRICS) and time.monotonic() < deadline:
            time.sleep(1)
            found = _scraped(url)
    assert found["ray_rerank_batch_pairs_total"] == 880
    assert found["ray_rerank_batch_queries_planned"] == 43
    assert set(found) == {metric.exported for metric in METRICS}


def _scraped(url: str) -> dict[str, float]:
    """Samples of our metrics, with the labels that the dashboard selects by."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: Any = answer.read().decode()
    except OSError:
        return {}
    sample = re.compile(r"^(ray_rerank_batch_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
    return {
        name: float(value)
        for name, labels, value in sample.findall(text)
        if 'rerank_job="nightly"' in labels and 'run_id="run-1"' in labels
    }
