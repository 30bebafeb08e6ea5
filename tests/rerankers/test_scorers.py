"""Scorers with weights: their own rules checked from scratch, memory, threads, modes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import FAMILIES, choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.torch import TorchRuntime
from tests.conftest import sentences

OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))
QUERIES = sentences(6, seed=10)
LISTS = [sentences(n, seed=20 + n, words=60) for n in (7, 0, 1, 12, 3, 5)]


# These run a `TorchRuntime` or what was measured to be faster; the others run torch themselves.
WITH_RUNTIMES = ("cross-encoder", "late-interaction")


@pytest.mark.parametrize("family", WITH_RUNTIMES)
def test_scores_stay_what_they_are_where_memory_runs_out(family, folders, monkeypatch):
    """Every forward pass of more than one text fails, as it would on a smaller machine."""
    name = ModelName(family, str(folders[family]))
    expected = load_scorer(name, OPTIONS).score(QUERIES, LISTS)
    other = load_scorer(name, OPTIONS)
    run, failed = TorchRuntime.run, []

    def short_of_memory(runtime, batch):
        if len(batch.lengths) > 1:
            failed.append(len(batch.lengths))
            raise torch.OutOfMemoryError("out of memory")
        return run(runtime, batch)

    monkeypatch.setattr(TorchRuntime, "run", short_of_memory)
    scored = other.score(QUERIES, LISTS)
    assert failed
    np.testing.assert_array_equal(
        np.concatenate(scored.truncated), np.concatenate(expected.truncated)
    )
    for values, known in zip(scored.values, expected.values, strict=True):
        np.testing.assert_allclose(values, known, atol=2e-5)


@pytest.mark.parametrize("family", [name for name, each in FAMILIES.items() if not each.service])
def test_the_first_pass_of_a_model_is_made_by_one_thread(family, folders, monkeypatch):
    """Two threads that call MKL's vector functions for the first time can get other digits."""
    each, threads = TokenBudget.each, []

    def watched(budget, lengths, forward, even=False):
        threads.append(torch.get_num_threads())
        each(budget, lengths, forward, even)

    monkeypatch.setattr(TokenBudget, "each", watched)
    name = ModelName(family, str(folders[family]))
    scorer = load_scorer(name, replace(OPTIONS, threads=2))
    assert set(threads) == {1}
    threads.clear()
    scorer.score(["river"], [["stone"]])
    assert set(threads) == {2}


@pytest.mark.parametrize("family", WITH_RUNTIMES)
def test_a_family_measures_its_modes_and_runs_in_the_one_it_chose(family, folders):
    options = replace(OPTIONS, mode=None, precision="auto", allow=("int8",))
    choice = choose_mode(ModelName(family, str(folders[family])), options)
    # int8 is left out where it is too far from the model, which a tiny random one may be.
    assert set(choice.tokens_per_second) - {"openvino int8"} == {"openvino fp32", "torch fp32"}
    assert choice.tokens_per_second[str(choice.mode)] == max(choice.tokens_per_second.values())
    assert load_scorer(ModelName(family, str(folders[family])), options).mode.format in (
        "fp32",
        "int8",
    )


def test_an_unknown_family_names_those_there_are():
    with pytest.raises(ModelError, match="cross-encoder, late-interaction"):
        load_scorer(ModelName("nonsense", "x"), OPTIONS)


@pytest.mark.parametrize("max_length", [None, 24])
def test_cross_encoder_logits_are_those_of_predict(tiny_cross_encoder, max_length):
    """Pairs from empty to four times the maximum length, raw logits, within 1e-4."""
    queries = [*sentences(20, seed=30), " ".join(["river"] * 90), ""]
    documents = [[*sentences(9, seed=i, words=150), ""] for i in range(len(queries))]
    scorer = load_scorer(
        ModelName("cross-encoder", str(tiny_cross_encoder)), replace(OPTIONS, max_length=max_length)
    )
    scored = scorer.score(queries, documents)
    theirs = CrossEncoder(str(tiny_cross_encoder), max_length=max_length, device="cpu")
    pairs = [(q, d) for q, listed in zip(queries, documents, strict=True) for d in listed]
    expected = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    assert np.ptp(expected) > 0.1, "the model tells the pairs apart"
    np.testing.assert_allclose(np.concatenate(scored.values), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_length", [24, 25])
def test_texts_far_beyond_the_maximum_length_score_as_predict_scores_them(
    tiny_cross_encoder, max_length
):
    """Either text the longer one, or both equally long: the odd token goes where it should."""
    words = (3, 95, 96, 97, 100, 193, 200, 201, 900)
    texts = [" ".join(sentences(1, seed=n, words=n)) + "2xy" * (n % 2) for n in words]
    scorer = load_scorer(
        ModelName("cross-encoder", str(tiny_cross_encoder)), replace(OPTIONS, max_length=max_length)
    )
    scored = scorer.score(texts, [texts] * len(texts))
    theirs = CrossEncoder(str(tiny_cross_encoder), max_length=max_length, device="cpu")
    expected = theirs.predict(
        [(q, d) for q in texts for d in texts], activation_fn=torch.nn.Identity()
    )
    np.testing.assert_allclose(np.concatenate(scored.values), expected, rtol=0, atol=1e-4)


@pytest.mark.timeout(30)
def test_a_megabyte_beside_a_long_query_takes_no_more_than_its_beginning(tiny_cross_encoder):
    """The tokenizer alone would make 600,000 pieces of this one pair."""
    scorer = load_scorer(ModelName("cross-encoder", str(tiny_cross_encoder)), OPTIONS)
    query, document = "river " * 3_000, "river stone " * 90_000
    scored = scorer.score([query], [[document]])
    same = scorer.score([query[:1200]], [[document[:2400]]])
    np.testing.assert_allclose(scored.values[0], same.values[0], atol=2e-5)
    assert scored.truncated[0].tolist() == [True]


def test_a_cross_encoder_with_several_labels_is_no_reranker(tmp_path):
    from transformers import BertForSequenceClassification

    from tests.conftest import bert_config, build_tokenizer

    BertForSequenceClassification(bert_config(num_labels=3)).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 3 labels"):
        load_scorer(ModelName("cross-encoder", str(tmp_path)), OPTIONS)


def test_late_interaction_is_the_mean_of_the_best_cosines(tiny_bi_encoder):
    """Computed one pair at a time from the model's own token embeddings."""
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")

    def tokens(text, special):
        vectors = model.encode([text], output_value="token_embeddings")[0]
        vectors = torch.nn.functional.normalize(vectors, dim=-1).numpy()
        return vectors if special else vectors[1:-1]

    scorer = load_scorer(ModelName("late-interaction", str(tiny_bi_encoder)), OPTIONS)
    scored = scorer.score(QUERIES, LISTS)
    for query, listed, values in zip(QUERIES, LISTS, scored.values, strict=True):
        for document, value in zip(listed, values, strict=True):
            best = (tokens(query, False) @ tokens(document, True).T).max(axis=1)
            assert value == pytest.approx(best.mean(), abs=1e-5)


def test_late_interaction_encodes_each_document_of_a_window_once(tiny_bi_encoder, monkeypatch):
    scorer = load_scorer(ModelName("late-interaction", str(tiny_bi_encoder)), OPTIONS)
    run, texts = TorchRuntime.run, []
    monkeypatch.setattr(
        TorchRuntime,
        "run",
        lambda self, batch: texts.append(len(batch.lengths)) or run(self, batch),
    )
    documents = sentences(5, seed=1)
    scorer.score(QUERIES, [documents] * len(QUERIES))
    assert sum(texts) == len(QUERIES) + len(set(documents))
