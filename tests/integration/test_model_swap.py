"""A model whose files change between the plan and the actors: what a moved hub repository, or
another folder on a node, looks like."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rerank_batch.errors import ModelError
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from tests.chaos.project import HERE, Project


@pytest.fixture
def project(built_config, tmp_path) -> Project:
    return Project(built_config, str(tmp_path / "runs"), dict(os.environ))


def other_weights(model: Path, out: Path) -> Path:
    """The same model with other numbers in it."""
    shutil.copytree(model, out)
    rng = np.random.default_rng(0)
    weights = load_file(out / "model.safetensors")
    changed = {
        name: w + 0.1 * rng.normal(size=w.shape).astype(w.dtype) for name, w in weights.items()
    }
    save_file(changed, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.mark.parametrize("part", ["reranker", pytest.param("encoder", marks=pytest.mark.slow)])
def test_no_score_of_swapped_weights_is_published_or_cached(
    project, part, tiny_cross_encoder, tiny_bi_encoder, tmp_path
):
    original = tiny_cross_encoder if part == "reranker" else tiny_bi_encoder
    model = shutil.copytree(original, tmp_path / "model")
    other = other_weights(original, tmp_path / "other")
    family, key = (
        ("cross-encoder", "reranker.model")
        if part == "reranker"
        else ("sentence-transformers", "index.encoder")
    )
    settings = [
        *("--set", f"root={project.root}", "--set", f"{key}={family}:{model}"),
        *("--set", "cache.enabled=true"),
        *("--set", "reranker.runtime=torch"),  # nothing is measured, so an actor is first to load
    ]
    extra = {
        "RERANK_BATCH_SABOTAGE": f"swap:{model}={other}",
        "PYTHONPATH": os.pathsep.join([str(HERE / "sabotage"), os.environ.get("PYTHONPATH", "")]),
    }
    swapped = Project(project.config, project.root, {**project.environment, **extra})

    done = swapped.run("rerank", project.config, "--run-id", "night", *settings)

    said = " ".join(done.stderr.split())
    assert done.returncode == ModelError.exit_code, done.stderr[-3000:]
    assert f"{model} holds other files than the model" in said
    assert "Traceback" not in done.stderr
    root = open_root(project.root)
    assert not root.sizes("scores/"), "no score entered the cache"
    assert not root.sizes("runs/night/"), "the run holds nothing, so its id is free"

    shutil.copytree(original, model, dirs_exist_ok=True)
    again = project.run("rerank", project.config, "--run-id", "night", *settings)
    assert again.returncode == 0, again.stderr[-3000:]
    assert Run.open(root, "night").final() is not None
    assert root.sizes("scores/"), "the cache was on"
