"""Tiny rerankers with seeded weights, of the same architecture and tokenizer kind as the real ones.

Their norms are random too, so that none can be left out or taken twice without being seen.
"""

import json
import math
from pathlib import Path
from typing import Any

BYTES = [f"<0x{n:02X}>" for n in range(256)]
LETTERS = [chr(n) for n in range(33, 127)]


def write_qwen3_reranker(folder: Path) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _qwen_tokenizer()
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=8, **_SHAPE)
    return _write(folder, Qwen3ForCausalLM, config, tokenizer)


def write_mxbai_v2(folder: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **_SHAPE)
    return _write(folder, Qwen2ForCausalLM, config, tokenizer)


def write_bge_gemma(folder: Path) -> Path:
    from transformers import AddedToken, GemmaConfig, GemmaForCausalLM, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = GemmaTokenizer(**_pieces(special))
    # As Gemma has them for runs of white space: added, but part of every text.
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False, special=False)])
    config = GemmaConfig(vocab_size=len(tokenizer), head_dim=8, **_SHAPE)
    return _write(folder, GemmaForCausalLM, config, tokenizer)


def write_bge_layerwise(folder: Path) -> Path:
    """By hand, as the published checkpoint is laid out: `naive_minicpm` knows what it computes."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaTokenizer

    tokenizer = LlamaTokenizer(**_pieces(["<unk>", "<s>", "</s>"]), legacy=False)
    tokenizer.save_pretrained(folder)
    settings = {
        "architectures": ["LayerWiseMiniCPMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_minicpm_reranker.LayerWiseMiniCPMConfig",
            "AutoModelForCausalLM": "modeling_minicpm_reranker.LayerWiseMiniCPMForCausalLM",
        },
        "model_type": "minicpm",
        "vocab_size": len(tokenizer),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "head_multi": True,
        "head_type": "simple",
        "start_layer": 2,
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 8,
        **_SHAPE,
        "num_hidden_layers": 4,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(3)

    def weights(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator) * (0.3 if len(shape) > 1 else 1)

    width, inner, keys = 32, 64, 16
    found = {"model.embed_tokens.weight": weights(len(tokenizer), width) / 4}
    for number in range(4):
        layer = f"model.layers.{number}."
        for name, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
            found[f"{layer}self_attn.{name}_proj.weight"] = weights(rows, width)
        found[layer + "mlp.gate_proj.weight"] = weights(inner, width)
        found[layer + "mlp.up_proj.weight"] = weights(inner, width)
        found[layer + "mlp.down_proj.weight"] = weights(width, inner)
        found[layer + "input_layernorm.weight"] = weights(width)
        found[layer + "post_attention_layernorm.weight"] = weights(width)
    found["model.norm.weight"] = weights(width)
    heads = {f"lm_head.{n}.linear_head.weight": weights(1, width) for n in range(3)}
    # The published weights are in several files too.
    save_file(found, folder / "model-00001-of-00002.safetensors")
    save_file(heads, folder / "model-00002-of-00002.safetensors")
    places = {
        **dict.fromkeys(found, "model-00001-of-00002.safetensors"),
        **dict.fromkeys(heads, "model-00002-of-00002.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )
    return folder


def naive_minicpm(folder: Path, ids: list[int], stop: int) -> float:
    """One text's score after layer ``stop``, in float64 and straight from the definition."""
    import torch
    from safetensors.torch import load_file

    settings = json.loads((folder / "config.json").read_text())
    weights = {
        name: tensor.double()
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    heads, groups = settings["num_attention_heads"], settings["num_key_value_heads"]
    size = settings["hidden_size"] // heads
    branch = settings["scale_depth"] / math.sqrt(settings["num_hidden_layers"])
    rates = 10_000.0 ** -(torch.arange(0, size, 2).double() / size)
    angles = torch.arange(len(ids)).double()[:, None] * rates
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def norm(x: Any, name: str) -> Any:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + settings["rms_norm_eps"])
        return x * scale * weights[name]

    def turned(x: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    hidden = weights["model.embed_tokens.weight"][ids] * settings["scale_emb"]
    future = torch.ones(len(ids), len(ids)).triu(1).bool()
    for number in range(stop):
        layer = f"model.layers.{number}."
        x = norm(hidden, layer + "input_layernorm.weight")
        q, k, v = (x @ weights[f"{layer}self_attn.{name}_proj.weight"].T for name in "qkv")
        mixed = []
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            group = head * groups // heads
            theirs = slice(group * size, (group + 1) * size)
            near = turned(q[:, mine]) @ turned(k[:, theirs]).T / math.sqrt(size)
            mixed.append(near.masked_fill(future, -math.inf).softmax(-1) @ v[:, theirs])
        out = torch.cat(mixed, -1) @ weights[layer + "self_attn.o_proj.weight"].T
        hidden = hidden + branch * out
        x = norm(hidden, layer + "post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(x @ weights[layer + "mlp.gate_proj.weight"].T)
        up = x @ weights[layer + "mlp.up_proj.weight"].T
        hidden = hidden + branch * ((gate * up) @ weights[layer + "mlp.down_proj.weight"].T)
    last = norm(hidden, "model.norm.weight")[-1]
    head = weights[f"lm_head.{stop - settings['start_layer']}.linear_head.weight"]
    return float(head[0] @ last)


_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
}


def _write(folder: Path, kind: Any, config: Any, tokenizer: Any) -> Path:
    import torch

    torch.manual_seed(2)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _qwen_tokenizer() -> Any:
    """Byte-level BPE cut by Qwen's own pattern, with tokens that stand across what is cut."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AddedToken, Qwen2Tokenizer

    merges = ["y e", "ye s", "n o", "Ġ a", "Ġa l", "r i", "ri v", "riv er", "e r", "s t", "? Ċ"]
    merges += ["> :", "Ċ Ċ", "d o", "do c", "Ġ Ċ", "b e", "Ġ be", "t a"]
    pieces = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges])
    control = [AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_tokens(control, special_tokens=True)
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    return tokenizer


def _pieces(special: list[str]) -> dict[str, Any]:
    """Vocabulary and merges of a BPE over characters that falls back to bytes."""
    merges = [("Y", "e"), ("Ye", "s"), ("▁", "a"), ("▁a", "l"), ("r", "i"), ("ri", "v")]
    merges += [("▁", "Y"), ("▁Y", "es"), ("e", "s")]
    pieces = [*special, *BYTES, "▁", "\n", *LETTERS, *("".join(merge) for merge in merges)]
    return {"vocab": {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}, "merges": merges}


def write_colbert(folder: Path) -> Path:
    """As colbert-ai saves it: the projection beside the transformer's weights."""
    from safetensors.torch import save_file

    tokenizer, model, projection = _colbert_parts()
    tokenizer.save_pretrained(folder)
    config = {**model.config.to_dict(), "architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(
        {**weights, "linear.weight": projection},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 16,
        "doc_maxlen": 40,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
        "dim": 12,
        "similarity": "cosine",
    }
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


def write_pylate(folder: Path, **settings: Any) -> Path:
    """As PyLate saves it: a projection of its own folder, markers added to the tokenizer."""
    from safetensors.torch import save_file

    tokenizer, model, projection = _colbert_parts()
    tokenizer.add_tokens(["[Q] ", "[D] "])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    dense = folder / "1_Dense"
    dense.mkdir()
    save_file({"linear.weight": projection}, dense / "model.safetensors")
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ],
        "1_Dense/config.json": {
            "in_features": 32,
            "out_features": 12,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        # PyLate leaves behind the length that it last tokenised to, less its marker.
        "sentence_bert_config.json": {"max_seq_length": 39, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "similarity_fn_name": "MaxSim",
            "query_prefix": "[Q] ",
            "document_prefix": "[D] ",
            "query_length": 16,
            "document_length": 40,
            "do_query_expansion": True,
            "attend_to_expansion_tokens": False,
            "skiplist_words": [",", ".", "?"],
            **settings,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def _colbert_parts() -> tuple[Any, Any, Any]:
    """A tokenizer with markers and punctuation, a transformer, a projection [12, 32]."""
    import string

    import torch
    from transformers import BertModel, BertTokenizerFast

    from tests.conftest import WORDS, bert_config

    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)]
    tokens = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [*string.punctuation, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizerFast(
        vocab={token: number for number, token in enumerate(tokens)}, model_max_length=64
    )
    torch.manual_seed(4)
    config = bert_config(initializer_range=0.5)
    config.vocab_size = len(tokenizer)
    return tokenizer, BertModel(config).eval(), torch.randn(12, 32)
