"""The encoder gives the vectors of sentence-transformers, by our engine and without it."""

import logging

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from rerank_batch import tally
from rerank_batch.retrieval import encoder as encoder_module
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.scoring.networks.body import UnknownShape
from tests.conftest import sentences

MODES = [Mode("torch", "fp32"), Mode("openvino", "fp32")]
TEXTS = [*sentences(9, seed=1), *sentences(3, seed=2, words=90), "", "Ünïcode, 東京", "river"]


def cosines(ours, theirs):
    """Of vectors of length 1, row by row."""
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    return (ours * theirs).sum(axis=1)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_vectors_are_those_of_sentence_transformers(tiny_bi_encoder, mode):
    ours = Encoder(tiny_bi_encoder, EncoderOptions(mode=mode)).encode_documents(TEXTS)
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    theirs = model.encode(TEXTS, normalize_embeddings=True)
    assert (np.abs(cosines(ours, theirs) - 1) < 1e-5).all()
    assert np.abs(theirs @ theirs.T).min() < 0.9, "the model tells the texts apart"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_queries_and_documents_get_the_prompts_of_the_model(tiny_bi_encoder, tmp_path, mode):
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    model.prompts = {"query": "winter garden: ", "document": "paper: "}
    model.save_pretrained(str(tmp_path))
    ours = Encoder(tmp_path, EncoderOptions(mode=mode))
    for found, task in (
        (ours.encode_queries(TEXTS), "query"),
        (ours.encode_documents(TEXTS), "document"),
    ):
        theirs = model.encode(TEXTS, prompt_name=task, normalize_embeddings=True)
        assert (np.abs(cosines(found, theirs) - 1) < 1e-5).all()


STORED = {
    "passage": ({"query": "winter: ", "passage": "paper: "}, None),
    "default": ({"web": "garden: "}, "web"),
    "default query": ({"query": "winter: ", "document": "paper: "}, "query"),
}


@pytest.mark.parametrize("by", ["engine", "library"])
@pytest.mark.parametrize("stored", STORED)
def test_prompts_are_those_of_encode_query_and_encode_document(
    tiny_bi_encoder, tmp_path, monkeypatch, stored, by
):
    """Whatever their names, and whoever runs the model."""
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    prompts, model.default_prompt_name = STORED[stored]
    model.prompts = {**prompts}
    model.save_pretrained(str(tmp_path))
    if by == "library":
        monkeypatch.setattr(encoder_module, "_read", raise_unknown)
    ours = Encoder(tmp_path, EncoderOptions(mode=MODES[0]))
    model = SentenceTransformer(str(tmp_path), device="cpu")
    for found, theirs in (
        (ours.encode_queries(TEXTS), model.encode_query(TEXTS, normalize_embeddings=True)),
        (ours.encode_documents(TEXTS), model.encode_document(TEXTS, normalize_embeddings=True)),
    ):
        assert (np.abs(cosines(found, theirs) - 1) < 1e-5).all()


def raise_unknown(*_):
    raise UnknownShape("of no known kind")


def test_tokens_of_a_prompt_are_counted_where_sentence_transformers_runs(
    tiny_bi_encoder, tmp_path, monkeypatch
):
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    model.prompts = {"query": "winter garden ", "document": ""}
    model.save_pretrained(str(tmp_path))
    monkeypatch.setattr(encoder_module, "_read", raise_unknown)
    ours = Encoder(tmp_path, EncoderOptions(mode=MODES[0]))
    tally.drain()
    ours.encode_queries(["river stone"])
    ours.encode_documents(["river stone"])
    assert tally.drain().sums[tally.TOKENS] == (2 + 2 + 2) + (2 + 2)


@pytest.mark.parametrize(("stored", "noticed"), [("dot", 1), ("cosine", 0)])
def test_another_similarity_than_the_cosine_is_told_in_the_summary(
    tiny_bi_encoder, tmp_path, stored, noticed
):
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    model.similarity_fn_name = stored
    model.save_pretrained(str(tmp_path))
    tally.drain()
    Encoder(tmp_path, EncoderOptions(mode=MODES[0]))
    told = [what for what in tally.drain().counts if "stores the similarity dot" in what]
    assert len(told) == noticed


def test_a_model_of_an_unknown_shape_is_run_by_sentence_transformers(
    tiny_bi_encoder, monkeypatch, caplog
):
    expected = Encoder(tiny_bi_encoder, EncoderOptions(mode=MODES[0])).encode_documents(TEXTS)

    def unknown(*arguments):
        raise UnknownShape("of no known kind")

    monkeypatch.setattr(encoder_module, "text_engine", unknown)
    with caplog.at_level(logging.WARNING):
        found = Encoder(tiny_bi_encoder, EncoderOptions(mode=MODES[0])).encode_documents(TEXTS)
    assert "run by sentence-transformers: of no known kind" in caplog.text
    np.testing.assert_allclose(found, expected, atol=1e-5)
    choice = Encoder.choose(tiny_bi_encoder, EncoderOptions())
    assert (choice.mode, choice.fallback) == (Mode("torch", "fp32"), "of no known kind")
    assert Choice.from_dict(choice.to_dict()) == choice


def test_the_fastest_mode_is_chosen_by_measurement(tiny_bi_encoder):
    choice = Encoder.choose(tiny_bi_encoder, EncoderOptions())
    assert set(choice.tokens_per_second) == {"openvino fp32", "torch fp32"}
    assert choice.tokens_per_second[str(choice.mode)] == max(choice.tokens_per_second.values())


def test_no_texts_are_fine(tiny_bi_encoder):
    assert Encoder(tiny_bi_encoder, EncoderOptions(mode=MODES[0])).encode_queries([]).shape[0] == 0
