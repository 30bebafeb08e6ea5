"""`finetune` on a tiny model: what it writes, that a kill changes nothing, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jobs.console import Console
from jobs.finetune import Work, finetune
from rerank_batch.errors import InputsChanged, RunConflict
from rerank_batch.models import ModelName
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.training import trainer
from rerank_batch.training.config import FinetuneConfig
from tests.training.label_sets import label_rows, write_labels


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_labels(tmp_path_factory.mktemp("labels"), label_rows()))


def settings(model: Path, **changed: Any) -> FinetuneConfig:
    plain: dict[str, Any] = {
        "model": f"cross-encoder:{model}",
        "max_length": 48,
        "steps": 12,
        "queries_per_step": 4,
        "documents_per_query": 3,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "dev": {"every": 4, "patience": None},
        "checkpoint": {"steps": 5, "minutes": None},
    }
    return FinetuneConfig.model_validate({**plain, **changed})


def run(config: FinetuneConfig, labels: str, out: Path, **work: Any) -> dict[str, Any]:
    return finetune(config, labels, out, Work(**work), Console())


def test_the_model_of_the_best_step_is_one_that_rerank_loads(
    tiny_bi_encoder: Path, labels: str, tmp_path: Path
) -> None:
    """From an encoder: with a fresh head, ending in an ordinary cross-encoder and its card."""
    from sentence_transformers import CrossEncoder

    out = tmp_path / "model"
    summary = run(settings(tiny_bi_encoder), labels, out)
    assert not (tmp_path / "model.training").exists()
    assert summary["steps"] == 12
    logged = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    measures = {entry["step"]: entry["measure"] for entry in logged if "measure" in entry}
    assert sorted(measures) == [0, 4, 8, 12]
    assert measures[summary["best_step"]] == max(measures.values())
    # What was measured in training is what the saved model does.
    dev, test = summary["measured"]
    assert dev["means"]["tuned"] == pytest.approx(max(measures.values()), abs=1e-6)
    assert dev["means"]["start"] == pytest.approx(measures[0], abs=1e-6)
    assert (test["split"], test["queries"]) == ("test", 6)
    card = (out / "README.md").read_text()
    assert summary["made_of"]["labels"] in card
    assert f"| {dev['means']['tuned']:.4f} |" in card

    asked, documents = ["river stone", "alpha"], [["a river", "paper stone"], ["alpha " * 90]]
    scorer = load_scorer(ModelName("cross-encoder", str(out)), ScorerOptions(runtime="torch"))
    ours = np.concatenate(scorer.score(asked, documents).values)
    pairs = [(q, d) for q, listed in zip(asked, documents, strict=True) for d in listed]
    import torch

    theirs = CrossEncoder(str(out), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8, "dropout": 0.1}])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tiny_cross_encoder: Path,
    labels: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: dict[str, Any] | None,
) -> None:
    """Same data, same dropout, same optimizer: the same weights to the last bit."""
    config = settings(tiny_cross_encoder, lora=lora)
    run(config, labels, tmp_path / "whole")

    seen = trainer.Keeper.on_step_end

    def dies(self: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        if state.global_step == 8:
            raise KeyboardInterrupt
        seen(self, args, state, *rest, **more)

    out = tmp_path / "halves"
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Keeper, "on_step_end", dies)
        with pytest.raises(KeyboardInterrupt):
            run(config, labels, out)
    # As if it had been killed while it wrote the next checkpoint.
    (tmp_path / "halves.training" / "checkpoints" / "checkpoint-8").mkdir()

    with pytest.raises(RunConflict, match="go on with --resume"):
        run(config, labels, out)
    with pytest.raises(InputsChanged, match="learning_rate"):
        run(config.model_copy(update={"learning_rate": 2e-3}), labels, out, resume=True)
    run(config, labels, out, resume=True)

    whole, halves = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for name, tensor in whole.items():
        assert np.array_equal(tensor, halves[name]), name
    steps = [json.loads(x)["step"] for x in (out / "training.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
