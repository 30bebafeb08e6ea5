"""The encoder gives the vectors of sentence-transformers, by our engine and without it."""

import logging

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from rerank_batch.retrieval import encoder as encoder_module
from rerank_batch.retrieval.encoder import Encoder
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.network import UnknownShape
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
    assert Encoder.choose(tiny_bi_encoder, EncoderOptions()).mode == Mode("torch", "fp32")


def test_the_fastest_mode_is_chosen_by_measurement(tiny_bi_encoder):
    choice = Encoder.choose(tiny_bi_encoder, EncoderOptions())
    assert set(choice.tokens_per_second) == {"openvino fp32", "torch fp32"}
    assert choice.tokens_per_second[str(choice.mode)] == max(choice.tokens_per_second.values())


def test_no_texts_are_fine(tiny_bi_encoder):
    assert Encoder(tiny_bi_encoder, EncoderOptions(mode=MODES[0])).encode_queries([]).shape[0] == 0
