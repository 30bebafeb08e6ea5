"""Several workers share each step: what comes out is what one process makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import run_json
from tests.training.label_sets import label_rows, write_labels

pytestmark = pytest.mark.slow

SETTINGS = """
model: cross-encoder:{model}
max_length: 48
loss: bce
steps: 10
queries_per_step: 4
documents_per_query: 3
learning_rate: 1.0e-3
precision: fp32
dropout: 0        # workers draw their own; without it their gradients add up to one process's
dev: {{every: 5, patience: null}}
checkpoint: {{steps: 4, minutes: null}}
"""


def test_two_workers_end_where_one_process_ends(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels", label_rows())
    config = tmp_path / "finetune.yaml"
    config.write_text(SETTINGS.format(model=tiny_cross_encoder))
    common = ("finetune", config, "--labels", labels)
    one = run_json(*common, "--out", tmp_path / "one", timeout=300)
    two = run_json(*common, "--out", tmp_path / "two", "--workers", 2, timeout=300)
    assert one["best_step"] == two["best_step"]
    for here, there in zip(one["measured"], two["measured"], strict=True):
        assert here["means"] == pytest.approx(there["means"], abs=1e-6)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    start = load_file(tiny_cross_encoder / "model.safetensors")
    assert max(np.abs(weights[0][name] - start[name]).max() for name in start) > 1e-3
    for name, tensor in weights[0].items():
        if name.endswith("key.bias"):
            continue  # attention does not depend on it, so its gradient is what rounding leaves
        assert np.abs(tensor - weights[1][name]).max() < 1e-4, name
    losses = [
        [
            entry["loss"]
            for entry in map(json.loads, log.read_text().splitlines())
            if "loss" in entry
        ]
        for log in (tmp_path / "one" / "training.jsonl", tmp_path / "two" / "training.jsonl")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
