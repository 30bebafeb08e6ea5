"""Models that load and cannot be used: one message before the first query, with what to change."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import (
    BertTokenizerFast,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import FAMILIES, choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.modes import Mode
from tests.conftest import build_tokenizer, run_command, write_encoder
from tests.scoring.models import build_tokenizer as build_other_tokenizer
from tests.scoring.models import write_model
from tests.support import tiny_models

TORCH = Mode("torch", "fp32")


def refused(folder, family="cross-encoder", **options):
    """The message by which a model is refused, by its scorer and where its mode is measured."""
    name = ModelName(family, str(folder))
    with pytest.raises(ModelError) as loaded:
        load_scorer(name, ScorerOptions(mode=TORCH, **options))
    with pytest.raises(ModelError) as measured:
        choose_mode(name, ScorerOptions(**options))
    assert str(loaded.value) == str(measured.value)
    assert "\n" not in str(loaded.value)
    assert str(folder) in str(loaded.value)
    return str(loaded.value)


def write_without_padding(folder):
    """As many language models are published: no padding token in the tokenizer."""
    tokenizer = build_tokenizer()
    BertTokenizerFast(vocab=tokenizer.get_vocab(), pad_token=None).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), intermediate_size=64, num_labels=1, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_roberta(folder, **settings):
    """66 rows of positions, of which 64 can be used."""
    tokenizer = build_other_tokenizer("roberta")
    tokenizer.model_max_length = 10**9
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=66, num_labels=1, type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def fill_with_nan(folder, part="LayerNorm.weight"):
    weights = load_file(folder / "model.safetensors")
    for name in [each for each in weights if each.endswith(part)]:
        weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_no_padding_token(tmp_path):
    message = refused(write_without_padding(tmp_path))
    assert "has no padding token: give it one, pad_token in tokenizer_config.json" in message


def test_a_padding_token_that_the_network_does_not_know(tmp_path):
    """The tokenizer has one; what the network says comes through with the same advice."""
    write_without_padding(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    assert "pad_token_id in config.json" in refused(tmp_path)


def test_positions_that_end_before_the_tokenizer_does(tmp_path):
    message = refused(write_roberta(tmp_path))
    assert "reads at most 64 tokens" in message
    assert message.endswith("set reranker.max_length: 64")
    name = ModelName("cross-encoder", str(tmp_path))
    scorer = load_scorer(name, ScorerOptions(mode=TORCH, max_length=64))
    assert np.isfinite(scorer.score(["river " * 90], [["stone " * 90]]).values[0]).all()


@pytest.mark.parametrize("shape", ["bert", "deberta"])
def test_a_maximum_length_beyond_the_positions(tmp_path, shape):
    folder = write_model(tmp_path, shape)
    if shape == "bert":
        assert "set reranker.max_length: 80" in refused(folder, max_length=81)
    else:  # relative positions have no end
        name = ModelName("cross-encoder", str(folder))
        scored = load_scorer(name, ScorerOptions(mode=TORCH, max_length=120)).score(
            ["river " * 90], [["stone " * 90]]
        )
        assert np.isfinite(scored.values[0]).all()


@pytest.mark.parametrize("shape", ["bert", "deberta"])
def test_nan_for_plain_text(tmp_path, shape):
    folder = fill_with_nan(write_model(tmp_path, shape))
    assert "gives NaN or infinity for plain text in fp32" in refused(folder)


def test_nan_in_a_format_with_fewer_digits(tmp_path, monkeypatch):
    from rerank_batch.scoring.library import Library

    folder = write_model(tmp_path, "deberta")
    logits = Library._logits
    monkeypatch.setattr(Library, "_logits", lambda self, pairs: logits(self, pairs) * np.nan)
    with pytest.raises(ModelError, match=r"nan.*set reranker\.precision: fp32"):
        load_scorer(
            ModelName("cross-encoder", str(folder)), ScorerOptions(mode=Mode("torch", "bf16"))
        )


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"truncation": "only_second"}, "set reranker.truncation: longest_first"),
        ({"mode": Mode("torch", "int8")}, "set reranker.precision: fp32"),
    ],
)
def test_an_option_that_only_our_engine_has(tmp_path, options, advice):
    folder = write_model(tmp_path, "deberta")
    name = ModelName("cross-encoder", str(folder))
    with pytest.raises(ModelError, match=advice):
        load_scorer(name, ScorerOptions(**{"mode": TORCH, **options}))
    if "mode" not in options:
        with pytest.raises(ModelError, match=advice):
            choose_mode(name, ScorerOptions(**options))


def test_a_runtime_that_does_not_know_the_model(tmp_path):
    name = ModelName("cross-encoder", str(write_model(tmp_path, "deberta")))
    with pytest.raises(ModelError, match=r"set reranker\.runtime: auto"):
        choose_mode(name, ScorerOptions(runtime="openvino"))


@pytest.mark.parametrize("family", [name for name, each in FAMILIES.items() if not each.service])
@pytest.mark.parametrize(
    "error", [ValueError("no\nsense"), KeyError("x"), IndexError("out of range")]
)
def test_whatever_a_first_pass_raises(family, error, folders, monkeypatch):
    """A `ModelError` of one line, with its cause; a full disk is no fault of the model."""

    def fail(*_, **__):
        raise error

    place = "rerank_batch.scoring.packing.TokenBudget.each"
    monkeypatch.setattr(place, fail)
    name = ModelName(family, str(folders[family]))
    with pytest.raises(ModelError, match="its first pass over plain text fails") as caught:
        load_scorer(name, ScorerOptions(mode=TORCH))
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    if isinstance(error, IndexError):
        assert "set reranker.max_length" in str(caught.value)
    for other in (OSError("No space left on device"), MemoryError()):
        error = other
        with pytest.raises(type(other)):
            load_scorer(name, ScorerOptions(mode=TORCH))


@pytest.mark.parametrize(
    "family", ["qwen3-reranker", "late-interaction", "late-interaction colbert"]
)
def test_nan_by_other_families(family, tmp_path):
    write = {
        "qwen3-reranker": lambda: tiny_models.write_qwen3_reranker(tmp_path),
        "late-interaction": lambda: write_encoder(tmp_path / "out", tmp_path / "bert"),
        "late-interaction colbert": lambda: tiny_models.write_colbert(tmp_path),
    }
    folder = fill_with_nan(
        write[family](), "norm.weight" if "qwen3" in family else "LayerNorm.weight"
    )
    with pytest.raises(ModelError, match="gives NaN or infinity for plain text in fp32"):
        load_scorer(ModelName(family.split()[0], str(folder)), ScorerOptions(mode=TORCH))


@pytest.mark.parametrize("family", ["late-interaction", "late-interaction colbert"])
def test_positions_by_other_families(family, tmp_path):
    if family == "late-interaction":
        folder = write_encoder(tmp_path / "out", tmp_path / "bert")
        options = {"max_length": 65}
    else:
        folder, options = tiny_models.write_colbert(tmp_path), {}
        metadata = json.loads((folder / "artifact.metadata").read_text())
        (folder / "artifact.metadata").write_text(json.dumps({**metadata, "doc_maxlen": 70}))
    name = ModelName("late-interaction", str(folder))
    with pytest.raises(ModelError, match=r"reads at most 64 tokens.*set reranker\.max_length: 64"):
        load_scorer(name, ScorerOptions(mode=TORCH, **options))


@pytest.mark.parametrize("where", ["choose", "load"])
def test_encoders_are_refused_with_settings_of_their_own(tmp_path, where):
    folder = write_encoder(tmp_path / "out", tmp_path / "bert")

    def use(**options):
        if where == "choose":
            Encoder.choose(folder, EncoderOptions(**options))
        else:
            Encoder(folder, EncoderOptions(mode=TORCH, **options))

    with pytest.raises(ModelError, match=r"set index\.max_length: 64"):
        use(max_length=65)
    prompts = {"prompts": {"query": "river " * 80, "document": ""}}
    settings = folder / "config_sentence_transformers.json"
    before = json.loads(settings.read_text())
    settings.write_text(json.dumps({**before, **prompts}))
    with pytest.raises(ModelError, match=r"prompt of 80 tokens.*set index\.max_length"):
        use()
    settings.write_text(json.dumps(before))
    fill_with_nan(folder)
    with pytest.raises(ModelError, match="gives NaN or infinity for plain text in fp32"):
        use()


def test_a_run_ends_at_once_and_leaves_nothing_to_resume(built_config, tmp_path):
    """Exit code 7 and one line; nothing is in the way of the same id with another setting."""
    folder = write_without_padding(tmp_path / "model")
    config = yaml.safe_load(built_config.read_text("utf-8"))
    config |= {"root": str(tmp_path / "runs")}
    config["reranker"] |= {"model": f"cross-encoder:{folder}", "runtime": "auto"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    done = run_command("rerank", file, "--run-id", "night")
    assert done.returncode == ModelError.exit_code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "has no padding token" in errors[0]
    assert "Traceback" not in done.stderr
    assert "--resume" not in done.stderr
    assert not [path for path in (tmp_path / "runs").rglob("*") if "night" in str(path)]
