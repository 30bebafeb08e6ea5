"""`finetune` on a tiny model: what it writes, that a kill changes nothing, and what it refuses."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from jobs.console import Console
from rerank_batch.config import load_section
from rerank_batch.errors import ConfigError, InputsChanged, ModelError, RunConflict
from rerank_batch.models.delta import DeltaFormat, write_delta
from rerank_batch.models.fingerprint import model_fingerprint
from rerank_batch.models.location import ModelName, model_folder
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.training import trainer
from rerank_batch.training.batches import GroupPlan
from rerank_batch.training.config import FinetuneConfig, Loss
from rerank_batch.training.labels import read_labels, trainable
from rerank_batch.training.losses import LOSSES, batch_of
from rerank_batch.training.model import load_start
from rerank_batch.training.workspace import Workspace
from rerank_batch.workflows.export_delta import export_delta
from rerank_batch.workflows.finetune import TrainingWork, dry_run, finetune
from tests.conftest import run_json, sentences
from tests.support.tiny_models import write_qwen3_reranker
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
    return finetune(config, labels, out, TrainingWork(**work), Console())


@pytest.fixture(scope="module")
def trained(
    tiny_bi_encoder: Path, labels: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """From an encoder, whose head is fresh: the model's folder and the summary."""
    out = tmp_path_factory.mktemp("trained") / "model"
    return out, run(settings(tiny_bi_encoder), labels, out)


def test_the_model_of_the_best_step_is_measured_and_told_about(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    out, summary = trained
    assert not (out.parent / "model.training").exists()
    assert (summary.steps, summary.ended) == (12, "all steps are done")
    logged = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    measures = {entry["step"]: entry["measure"] for entry in logged if "measure" in entry}
    assert sorted(measures) == [0, 4, 8, 12]
    assert measures[summary.best_step] == max(measures.values())
    # What was measured in training is what the saved model does.
    dev, test = summary.measured
    assert dev.means["tuned"] == pytest.approx(max(measures.values()), abs=1e-6)
    assert dev.means["start"] == pytest.approx(measures[0], abs=1e-6)
    assert dev.means["retrieval"] == 1.0  # the made-up ranks of the rows put positives first
    assert (test.split, test.queries) == ("test", 6)
    card = (out / "README.md").read_text()
    assert summary.made_of["labels"] in card
    assert f"| {dev.means['tuned']:.4f} |" in card


def test_rerank_scores_with_it_as_the_library_does(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    out, _ = trained
    asked, documents = ["river stone", "alpha"], [["a river", "paper stone"], ["alpha " * 90]]
    options = ScorerOptions(mode=Mode("torch", "fp32"))
    scorer = load_scorer(ModelName("cross-encoder", str(out)), options)
    ours = scorer.score(asked, documents)
    pairs = [(q, d) for q, listed in zip(asked, documents, strict=True) for d in listed]
    theirs = CrossEncoder(str(out), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
    assert np.abs(np.concatenate(ours.values) - theirs).max() < 1e-4
    assert ours.truncated[1].tolist() == [True]  # it reads max_length tokens


def test_it_is_shipped_as_what_changed_and_loads_as_a_model(
    trained: tuple[Path, dict[str, Any]],
    tiny_bi_encoder: Path,
    labels: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out, summary = trained
    delta = tmp_path / "delta"
    found = export_delta(out, delta, str(tiny_bi_encoder), DeltaFormat(bits=8), labels)
    assert found["fingerprint"] == model_fingerprint(model_folder(str(delta)))
    assert found["lost"]["whole"] == summary.measured[0].means["tuned"]
    assert found["lost"]["delta"] == pytest.approx(found["lost"]["whole"], abs=0.05)


def dies_in(patch: pytest.MonkeyPatch, step: int) -> None:
    """Training ends there as by a kill: nothing is written on the way out."""
    seen = trainer.Keeper.on_step_end

    def dies(self: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt
        seen(self, args, state, *rest, **more)

    patch.setattr(trainer.Keeper, "on_step_end", dies)


def assert_same_weights(here: Path, there: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (here, there))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert np.array_equal(tensor, theirs[name]), name


def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    tiny_bi_encoder: Path,
    labels: str,
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same data, same dropout, same optimizer: the same weights to the last bit."""
    config, out = settings(tiny_bi_encoder), tmp_path / "halves"
    with monkeypatch.context() as patch:
        dies_in(patch, step=8)
        with pytest.raises(KeyboardInterrupt):
            run(config, labels, out)
    # As if it had been killed while it wrote the next checkpoint.
    (tmp_path / "halves.training" / "checkpoints" / "checkpoint-8").mkdir()

    with pytest.raises(RunConflict, match="go on with --resume"):
        run(config, labels, out)
    with pytest.raises(InputsChanged, match="learning_rate"):
        run(config.model_copy(update={"learning_rate": 2e-3}), labels, out, resume=True)
    run(config, labels, out, resume=True)
    assert_same_weights(out, trained[0])
    steps = [json.loads(x)["step"] for x in (out / "training.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    with pytest.raises(RunConflict, match="exists already"):
        run(config, labels, out)
    with pytest.raises(RunConflict, match="no training to resume"):
        run(config, labels, tmp_path / "another", resume=True)


@pytest.mark.slow
def test_so_does_one_with_adapters_and_its_change_has_their_rank(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = settings(
        tiny_cross_encoder,
        steps=100,
        learning_rate=5e-3,
        lora={"rank": 3, "alpha": 6, "dropout": 0.1},
        freeze_embeddings=True,
        dev={"every": 20, "patience": None},
        checkpoint={"steps": 30, "minutes": None},
    )
    assert run(config, labels, tmp_path / "whole")["best_step"] > 0
    out = tmp_path / "halves"
    with monkeypatch.context() as patch:
        dies_in(patch, step=75)
        with pytest.raises(KeyboardInterrupt):
            run(config, labels, out)
    run(config, labels, out, resume=True)
    assert_same_weights(out, tmp_path / "whole")

    write_delta(
        out, tiny_cross_encoder, str(tiny_cross_encoder), DeltaFormat(3), tmp_path / "delta"
    )
    asked, documents = sentences(4, seed=5), [sentences(6, seed=6)] * 4
    found = [
        np.concatenate(
            load_scorer(ModelName("cross-encoder", str(f)), ScorerOptions())
            .score(asked, documents)
            .values
        )
        for f in (out, tmp_path / "delta", tiny_cross_encoder)
    ]
    assert np.abs(found[0] - found[1]).max() < 1e-3
    assert np.abs(found[0] - found[2]).max() > 1e-2


@pytest.mark.slow
def test_kill_9_and_resume_from_the_command_line(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path
) -> None:
    config = settings(tiny_cross_encoder, steps=400, dev={"every": 100, "patience": None})
    file = tmp_path / "finetune.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = ("finetune", file, "--labels", labels, "--out")
    run_json(*command, tmp_path / "whole")
    out = tmp_path / "killed"
    for least in (60, 200):
        resume = ["--resume"] if least > 60 else []
        arguments = [sys.executable, "-m", "jobs", *map(str, command), str(out), *resume]
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
            log = Workspace(out)
            while not any(entry["step"] >= least for entry in log.read_log()):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
    assert not out.exists()
    run_json(*command, out, "--resume")
    assert_same_weights(out, tmp_path / "whole")


@pytest.mark.slow
def test_time_that_is_over_ends_in_the_best_model_so_far(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path
) -> None:
    summary = run(settings(tiny_cross_encoder), labels, tmp_path / "model", minutes=0)
    assert (summary.steps, summary.ended) == (1, "0 minutes are over")
    assert summary.best_step in (0, 1)
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_training_stops_where_nothing_is_gained_any_more(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path
) -> None:
    config = settings(
        tiny_cross_encoder, learning_rate=1e-9, steps=50, dev={"every": 2, "patience": 3}
    )
    summary = run(config, labels, tmp_path / "model")
    assert (summary.best_step, summary.steps) == (0, 6)
    assert summary.ended == "no new best in 6 steps"
    dev = summary.measured[0]
    assert dev.means["tuned"] == dev.means["start"]
    assert dev.gains["start"].outcome == "undecided"


def test_a_loss_that_is_no_number_ends_training(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path
) -> None:
    config = settings(tiny_cross_encoder, learning_rate=1e30, schedule="constant", warmup=0)
    with pytest.raises(ModelError, match="lower learning_rate"):
        run(config, labels, tmp_path / "model")


def test_training_reads_the_prompt_that_is_stored_with_its_start(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every step and measurement: it is what the trained model is scored with."""
    from sentence_transformers import CrossEncoder

    prompted = {"prompts": {"web": "river "}, "default_prompt_name": "web"}
    CrossEncoder(str(tiny_cross_encoder), device="cpu", **prompted).save_pretrained(
        str(tmp_path / "start")
    )
    preprocess, read = CrossEncoder.preprocess, set()

    def watched(model: Any, inputs: Any, prompt: Any = None, **more: Any) -> Any:
        read.add((model.training, prompt))
        return preprocess(model, inputs, prompt=prompt, **more)

    monkeypatch.setattr(CrossEncoder, "preprocess", watched)
    run(settings(tmp_path / "start", steps=2), labels, tmp_path / "model")
    assert read == {(True, "river "), (False, "river ")}
    saved = CrossEncoder(str(tmp_path / "model"), device="cpu")
    assert saved.prompts[saved.default_prompt_name] == "river "


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_goes_down(loss: Loss, tiny_cross_encoder: Path, labels: str) -> None:
    """On a few groups again and again, with the library's own loss and what we feed it."""
    import torch

    config = settings(tiny_cross_encoder, loss=loss)
    read = read_labels(labels)
    plan = GroupPlan(trainable(read, config)[0], read.texts, config)
    model, _ = load_start(tiny_cross_encoder, config)
    module = LOSSES[loss](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(15):
        batch = batch_of([plan.group(number) for number in range(4)], config, plan.highest_label)
        wanted = batch.pop("label")
        value = module(list(batch.values()), wanted)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_a_decoder_and_too_long_texts_are_refused(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="reads 64 tokens at most"):
        run(settings(tiny_cross_encoder, max_length=128), labels, tmp_path / "long")
    decoder = write_qwen3_reranker(tmp_path / "qwen")
    with pytest.raises(ModelError, match="is a decoder"):
        run(settings(decoder), labels, tmp_path / "model")


def test_what_is_missing_is_named(
    tiny_cross_encoder: Path, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tiny_cross_encoder)
    with pytest.raises(ConfigError, match="not shared evenly by 3 workers"):
        run(config, labels, tmp_path / "model", workers=3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"accelerate, datasets.*rerank-batch\[train\]"):
        run(config, labels, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "head", "pairs"),
    [
        ("finetune-sample", "fresh", 60),
        ("finetune-sample-long", "its own", 48),
        ("finetune", "its own", 40),
    ],
)
def test_the_configurations_can_be_trained(
    name: str, head: str, pairs: int, labels: str, tiny_cross_encoder: Path
) -> None:
    """The second part of the sample goes on from what the first made, which is not here."""
    config = load_section(FinetuneConfig, Path(f"configs/{name}.yaml"))
    if name == "finetune-sample-long":
        config = config.model_copy(update={"model": f"cross-encoder:{tiny_cross_encoder}"})
    plan = dry_run(config, labels, TrainingWork())
    assert plan.head == head
    assert plan.pairs_per_step == pairs
    assert plan.train_queries == 18
    assert (plan.dev_queries, plan.dev_pairs) == (6, 42)
