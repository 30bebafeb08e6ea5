"""Tiny models of every shape the engine knows, each with a tokenizer of its kind, and of others."""

from pathlib import Path
from typing import Any

import torch

from tests.conftest import sentences

CORPUS = [
    *sentences(300, seed=7, words=12),
    "Ünïcode, 東京 and\ttabs",
    "naïve Ω café — 北京 мир",
    "0123456789 don't; what's it?",
]
SHAPES = ("bert", "roberta", "xlm-roberta", "modernbert", "modernbert-mean")

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
    # Wide weights: logits tell texts apart, and a wrong mask or position is seen in them.
    "initializer_range": 0.3,
}


def write_model(folder: Path, shape: str) -> Path:
    """A cross-encoder with one label and random weights; the engine knows no ``deberta``."""
    import transformers as t

    tokenizer = build_tokenizer(shape)
    tokenizer.save_pretrained(folder)
    common = {
        **_SIZES,
        "num_labels": 1,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(3)
    model: Any
    if shape == "bert":
        model = t.BertForSequenceClassification(t.BertConfig(**common))
    elif shape == "roberta":
        model = t.RobertaForSequenceClassification(t.RobertaConfig(**common, type_vocab_size=1))
    elif shape == "xlm-roberta":
        config = t.XLMRobertaConfig(**common, type_vocab_size=1)
        model = t.XLMRobertaForSequenceClassification(config)
    elif shape == "deberta":
        kind = t.DebertaV2Config(
            **common, relative_attention=True, position_biased_input=False, pos_att_type=["p2c"]
        )
        model = t.DebertaV2ForSequenceClassification(kind)
    else:
        config = t.ModernBertConfig(
            **common,
            classifier_pooling="mean" if shape.endswith("mean") else "cls",
            local_attention=8,
            global_attn_every_n_layers=3,
            initializer_cutoff_factor=3.0,
        )
        model = t.ModernBertForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder


def build_tokenizer(shape: str) -> Any:
    """WordPiece, byte-level BPE or Unigram, with the special tokens of the family around pairs."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    begin, end, pad, unknown = (
        ("<s>", "</s>", "<pad>", "<unk>")
        if "roberta" in shape
        else ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    )
    special = [begin, pad, end, unknown] if "roberta" in shape else [pad, unknown, begin, end]
    if shape == "bert":
        raw = Tokenizer(models.WordPiece(unk_token=unknown))
        raw.normalizer = normalizers.BertNormalizer()
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    elif shape == "xlm-roberta":
        raw = Tokenizer(models.Unigram())
        raw.normalizer = normalizers.NFKC()
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token=unknown, show_progress=False
        )
    else:
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="roberta" in shape)
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    raw.train_from_iterator(CORPUS, trainer)
    between = f"{end} {end}" if "roberta" in shape else f"{end}"
    kind = 1 if shape == "bert" else 0
    raw.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {between} $B:{kind} {end}:{kind}",
        special_tokens=[(begin, raw.token_to_id(begin)), (end, raw.token_to_id(end))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        cls_token=begin,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        model_max_length=70,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if shape == "bert"
        else ["input_ids", "attention_mask"],
    )
