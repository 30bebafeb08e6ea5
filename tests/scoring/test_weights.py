"""Weights that do not fit are refused, by every family and for every kind of damage.

The tiny models of the other tests are copied and one thing in their files is changed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.model import load_start, write_start
from tests.conftest import bert_config, build_tokenizer
from tests.support import tiny_models

TORCH = Mode("torch", "fp32")
PAIRS = (["river stone", "cloud"], [["paper engine", "winter"], ["summer garden alpha"]])

INNER = "encoder.layer.1.attention.self.query.weight"
USED = {
    "cross-encoder": f"bert.{INNER}",
    "late-interaction": INNER,
    "late-interaction colbert": f"bert.{INNER}",
    "late-interaction pylate": INNER,
    "encoder": INNER,
    "finetune": f"bert.{INNER}",
    "qwen3-reranker": "model.layers.1.self_attn.q_proj.weight",
    "mxbai-v2": "model.layers.1.self_attn.q_proj.weight",
    "bge-gemma": "model.layers.1.self_attn.q_proj.weight",
    "bge-layerwise": "model.layers.1.self_attn.q_proj.weight",
}
"""A weight inside each family's network."""

HEADS = {
    "cross-encoder": "classifier.weight",
    "late-interaction colbert": "linear.weight",
    "late-interaction pylate": "linear.weight",
    "finetune": "classifier.weight",
    "qwen3-reranker": "lm_head.weight",
    "mxbai-v2": "model.embed_tokens.weight",  # tied
    "bge-gemma": "model.embed_tokens.weight",  # tied
    "bge-layerwise": "lm_head.2.linear_head.weight",
}
"""What makes the score of it; a bi-encoder has none."""


@pytest.fixture(scope="session")
def whole(
    tiny_cross_encoder: Path, tiny_bi_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """An undamaged model of every kind."""
    written = {
        "late-interaction colbert": tiny_models.write_colbert,
        "late-interaction pylate": tiny_models.write_pylate,
        "qwen3-reranker": tiny_models.write_qwen3_reranker,
        "mxbai-v2": tiny_models.write_mxbai_v2,
        "bge-gemma": tiny_models.write_bge_gemma,
        "bge-layerwise": tiny_models.write_bge_layerwise,
    }
    found = {kind: write(tmp_path_factory.mktemp("whole")) for kind, write in written.items()}
    return found | {
        "cross-encoder": tiny_cross_encoder,
        "finetune": tiny_cross_encoder,
        "late-interaction": tiny_bi_encoder,
        "encoder": tiny_bi_encoder,
    }


@pytest.fixture
def damaged(whole: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a model, one file of which has its tensors changed."""

    def copy(kind: str, name: str, change: Callable[[dict[str, Any], str], object]) -> Path:
        folder = Path(shutil.copytree(whole[kind], tmp_path / "model"))
        for file in sorted(folder.rglob("*.safetensors")):
            tensors = load_file(file)
            if name in tensors:
                change(tensors, name)
                save_file(tensors, file, metadata={"format": "pt"})
                index = folder / "model.safetensors.index.json"
                if index.is_file():
                    places = json.loads(index.read_text())
                    kept = {n: f for n, f in places["weight_map"].items() if f != file.name}
                    places["weight_map"] = kept | dict.fromkeys(tensors, file.name)
                    index.write_text(json.dumps(places))
                return folder
        raise AssertionError(f"{name} is in no file of {kind}")

    return copy


def lose(tensors: dict[str, Any], name: str) -> None:
    del tensors[name]


def rename(tensors: dict[str, Any], name: str) -> None:
    tensors[name.replace("weight", "kernel")] = tensors.pop(name)


def reshape(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = tensors[name][:, :-2].contiguous()


def add(tensors: dict[str, Any], name: str) -> None:
    tensors[name.replace("1", "7", 1)] = tensors[name].clone()


def quantise(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int8)


def load(kind: str, folder: Path) -> Any:
    """The scores or vectors of a model of that kind."""
    if kind == "encoder":
        return Encoder(folder, EncoderOptions(mode=TORCH)).encode_queries(PAIRS[0])
    if kind == "finetune":
        config = FinetuneConfig(model=f"cross-encoder:{folder}", max_length=32)
        write_start(folder, config, folder.parent / "start")
        return load_start(folder.parent / "start", config)[0].predict([("river", "stone")])
    scorer = load_scorer(ModelName(kind.partition(" ")[0], str(folder)), ScorerOptions(mode=TORCH))
    return np.concatenate(scorer.score(*PAIRS).values)


def inner(name: str) -> str:
    """A name as a network without a head knows it."""
    return name.removeprefix("bert.").removeprefix("model.")


def refused(kind: str, folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(kind, folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", USED)
@pytest.mark.parametrize("change", [lose, rename, reshape, quantise])
def test_a_weight_of_the_network_that_does_not_fit(damaged, kind, change):
    message = refused(kind, damaged(kind, USED[kind], change))
    assert inner(USED[kind]) in message


@pytest.mark.parametrize("kind", USED)
def test_a_layer_more_than_the_network_has(damaged, kind):
    message = refused(kind, damaged(kind, USED[kind], add))
    assert inner(USED[kind]).replace("1", "7") in message
    assert "more layers" in message


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("change", [lose, rename, reshape])
def test_a_head_that_does_not_fit(damaged, kind, change):
    assert HEADS[kind] in refused(kind, damaged(kind, HEADS[kind], change))


@pytest.mark.parametrize("kind", USED)
def test_what_is_whole_loads_and_has_nothing_random_in_it(whole, kind, tmp_path):
    found = []
    for seed in (1, 2):
        folder = Path(shutil.copytree(whole[kind], tmp_path / str(seed) / "model"))
        torch.manual_seed(seed)
        found.append(load(kind, folder))
    np.testing.assert_array_equal(*found)


def bert(folder: Path, tensors: dict[str, Any], **settings: Any) -> Path:
    """A folder that says it is a BERT cross-encoder, with these tensors in it."""
    config = bert_config(num_labels=1).to_dict()
    config |= {"architectures": ["BertForSequenceClassification"], **settings}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    build_tokenizer().save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def tensors(tiny_cross_encoder: Path) -> dict[str, Any]:
    return load_file(tiny_cross_encoder / "model.safetensors")


def test_jina_bert_under_the_name_of_bert(tmp_path, tensors):
    del tensors["bert.embeddings.position_embeddings.weight"]
    for n in range(2):
        for part in ("intermediate.dense", "output.dense"):
            for end in ("weight", "bias"):
                del tensors[f"bert.encoder.layer.{n}.{part}.{end}"]
        tensors[f"bert.encoder.layer.{n}.mlp.gated_layers.weight"] = torch.zeros(128, 32)
    message = refused("cross-encoder", bert(tmp_path / "m", tensors))
    assert "bert.embeddings.position_embeddings.weight" in message
    assert "JinaBERT" in message
    assert "9 in all" in message


def test_the_names_of_flash_attention(tmp_path):
    tensors = {
        "roberta.emb_ln.weight": torch.ones(32),
        "roberta.encoder.layers.0.mixer.Wqkv.weight": torch.zeros(96, 32),
        "classifier.dense.weight": torch.zeros(32, 32),
    }
    folder = bert(
        tmp_path / "m",
        tensors,
        model_type="xlm-roberta",
        architectures=["XLMRobertaForSequenceClassification"],
    )
    message = refused("cross-encoder", folder)
    assert "flash-attention" in message
    assert "roberta.encoder.layers.0.mixer.Wqkv.weight" in message


def test_an_encoder_without_a_head_is_no_cross_encoder(tmp_path, tensors, whole):
    encoder = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    message = refused(
        "cross-encoder", bert(tmp_path / "m", encoder, architectures=["BertForMaskedLM"])
    )
    assert "classifier.bias, classifier.weight (2 in all) are missing" in message
    assert "finetune" in message
    message = refused("cross-encoder", whole["encoder"])
    assert "bi-encoder" in message
    assert "late-interaction:" in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "model."])
def test_a_prefix_of_a_training_wrapper(tmp_path, tensors, prefix):
    wrapped = {prefix + name: tensor for name, tensor in tensors.items()}
    assert repr(prefix) in refused("cross-encoder", bert(tmp_path / "m", wrapped))


def test_adapters_that_were_not_merged(tmp_path, tensors):
    folder = bert(tmp_path / "m", tensors)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    assert "merge" in refused("cross-encoder", folder)
    assert "merge" in refused("finetune", folder)
    tensors[f"bert.{INNER.replace('weight', 'lora_A.weight')}"] = torch.zeros(4, 32)
    assert "merge" in refused("cross-encoder", bert(tmp_path / "n", tensors))


def test_a_projection_that_would_be_random(damaged, whole, tmp_path):
    """Without modules.json sentence-transformers adds a random one."""
    folder = Path(shutil.copytree(whole["late-interaction pylate"], tmp_path / "model"))
    (folder / "modules.json").unlink()
    assert "random" in refused("late-interaction pylate", folder)


def test_what_nobody_reads_may_be_absent_or_left_over(tmp_path, tensors, whole):
    """Heads of pretraining, buffers of older versions; an encoder without a pooler."""
    left_over = {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "cls.predictions.bias": torch.zeros(4),
        "cls.seq_relationship.weight": torch.zeros(2, 32),
    }
    load("cross-encoder", bert(tmp_path / "m", tensors | left_over))
    folder = Path(shutil.copytree(whole["encoder"], tmp_path / "encoder"))
    stored = load_file(folder / "model.safetensors")
    kept = {n: t for n, t in stored.items() if not n.startswith("pooler.")} | left_over
    assert len(kept) < len(stored) + 3
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    load("encoder", folder)


def test_training_draws_a_head_where_there_is_none_and_nothing_else(tmp_path, tensors):
    encoder = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    as_encoder = {"architectures": ["BertModel"]}
    load("finetune", bert(tmp_path / "a", encoder, **as_encoder))
    shutil.rmtree(tmp_path / "start")
    other_task = encoder | {"qa_outputs.weight": torch.zeros(2, 32)}
    load("finetune", bert(tmp_path / "d", other_task, **as_encoder))
    shutil.rmtree(tmp_path / "start")
    del encoder[f"bert.{INNER}"]
    assert f"bert.{INNER}" in refused("finetune", bert(tmp_path / "b", encoder, **as_encoder))
    half = {n: t for n, t in tensors.items() if n != "classifier.bias"}
    assert "classifier.bias" in refused("finetune", bert(tmp_path / "c", half, **as_encoder))


def test_a_part_that_the_network_does_not_have(tmp_path, tensors):
    """All that it has is there, but the file computes something else."""
    more = tensors | {"score_scale.weight": torch.ones(1, 1)}
    assert "score_scale.weight is not of" in refused("cross-encoder", bert(tmp_path / "m", more))


def test_weights_of_a_language_model_under_the_name_of_a_classifier(whole, tmp_path):
    folder = Path(shutil.copytree(whole["qwen3-reranker"], tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
    (folder / "config.json").write_text(json.dumps(config))
    message = refused("cross-encoder", folder)
    assert "score.weight is missing" in message
    assert "language model" in message


def test_a_file_that_is_not_whole_says_so(damaged):
    message = refused("qwen3-reranker", damaged("qwen3-reranker", USED["qwen3-reranker"], lose))
    assert "is missing" in message
    assert "not whole" in message


STARTS = {
    "bert": ("BertForMaskedLM", "BertConfig"),
    "bert-pretraining": ("BertForPreTraining", "BertConfig"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig"),
    "deberta": ("DebertaV2ForMaskedLM", "DebertaV2Config"),
    "electra": ("ElectraForPreTraining", "ElectraConfig"),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertConfig"),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig"),
    "mpnet": ("MPNetForMaskedLM", "MPNetConfig"),
}


@pytest.mark.parametrize("start", STARTS)
def test_training_starts_from_what_pretraining_left(tmp_path, start):
    """Encoders are published with heads of pretraining; some share layers with a classifier."""
    import transformers

    network, config = (getattr(transformers, name) for name in STARTS[start])
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if start == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    settings = config(
        vocab_size=len(tokenizer),
        intermediate_size=64,
        pad_token_id=0,
        max_position_embeddings=80,
        **sizes,
    )
    network(settings).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    load("finetune", tmp_path / "m")


def test_checkpoints_below_a_model_are_not_of_it(tmp_path, tensors):
    folder = bert(tmp_path / "m", tensors)
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "adapter_config.json").write_text("{}")
    load("cross-encoder", folder)


def shards(folder: Path, first: dict[str, Any], last: dict[str, Any]) -> Path:
    """The model of a folder as two files with an index, which holds each name once."""
    (folder / "model.safetensors").unlink()
    places = {}
    for name, part in (("model-00001-of-00002", first), ("model-00002-of-00002", last)):
        save_file(part, folder / f"{name}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(part, f"{name}.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_that_disagree_about_a_weight(tmp_path, tensors):
    """The library takes the last one, whatever the index says."""
    head = {"classifier.weight": tensors["classifier.weight"]}
    load("cross-encoder", shards(bert(tmp_path / "a", tensors), tensors, head))
    head = {"classifier.weight": tensors["classifier.weight"] + 1}
    message = refused("cross-encoder", shards(bert(tmp_path / "b", tensors), tensors, head))
    assert "classifier.weight stands in model-00001-of-00002.safetensors and in" in message


@pytest.mark.parametrize("kind", ["cross-encoder", "encoder", "late-interaction", "qwen3-reranker"])
def test_a_model_without_its_tokenizer(whole, kind, tmp_path):
    """Transformers makes a tokenizer that knows no word, to which all texts are one."""
    folder = Path(shutil.copytree(whole[kind], tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refused(kind, folder)


def test_a_tokenizer_of_another_model(tmp_path, tensors):
    tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(9, 32)
    message = refused("cross-encoder", bert(tmp_path / "m", tensors, vocab_size=9))
    assert "tokenizer is another model" in message


def test_a_projection_of_nan_is_told_as_one(damaged):
    def spoil(tensors: dict[str, Any], name: str) -> None:
        tensors[name] = tensors[name] * float("nan")

    kind = "late-interaction pylate"
    assert "NaN" in refused(kind, damaged(kind, "linear.weight", spoil))
