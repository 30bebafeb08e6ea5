"""What a reranker's folder stores beside its weights: prompts, arguments, activation, a chat."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from rerank_batch import tally
from rerank_batch.config import ScorerConfig
from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.configured import scorer_input
from rerank_batch.scoring.engine import PairEngine
from rerank_batch.scoring.library import Library
from rerank_batch.scoring.modes import Mode
from tests.conftest import sentences
from tests.scoring.models import write_model
from tests.support import tiny_models

TORCH, OPENVINO = Mode("torch", "fp32"), Mode("openvino", "fp32")
PROMPT = "river stone cloud: "
LONG = "winter garden " * 60
QUERIES = [*sentences(4, seed=1), LONG, "", "Ünïcode, 東京", " padded "]
DOCUMENTS = [*sentences(5, seed=2, words=30), LONG, LONG + "river", "", "e\u0301 [SEP] <pad>"]
RUNTIMES = {"bert": PairEngine, "xlm-roberta": PairEngine, "deberta": Library}


def with_prompt(folder, shape, prompt=PROMPT):
    """As sentence-transformers saves a reranker with a prompt that it uses by default."""
    base = write_model(folder / "base", shape)
    model = CrossEncoder(
        str(base), device="cpu", prompts={"web": prompt, "other": "?"}, default_prompt_name="web"
    )
    model.save_pretrained(str(folder / "prompted"))
    return folder / "prompted"


@pytest.fixture(scope="module", params=RUNTIMES)
def prompted(request, tmp_path_factory):
    return request.param, with_prompt(tmp_path_factory.mktemp(request.param), request.param)


def scorer(folder, mode=TORCH, **options):
    return load_scorer(ModelName("cross-encoder", str(folder)), ScorerOptions(mode=mode, **options))


def scores(made, queries=QUERIES, documents=DOCUMENTS):
    return np.concatenate(made.score(queries, [documents] * len(queries)).values)


def predicted(folder, queries=QUERIES, documents=DOCUMENTS, max_length=None, **options):
    model = CrossEncoder(str(folder), device="cpu", max_length=max_length)
    pairs = [(query, document) for query in queries for document in documents]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), **options)


def edit(folder, name="config_sentence_transformers.json", **changes):
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **changes}))
    return folder


@pytest.mark.parametrize("max_length", [None, 40, 41])
def test_scores_are_those_of_predict_with_the_stored_prompt(prompted, max_length):
    shape, folder = prompted
    ours = scorer(folder, max_length=max_length)
    assert isinstance(ours.runtime, RUNTIMES[shape])
    expected = predicted(folder, max_length=max_length)
    without = predicted(folder, max_length=max_length, prompt="")
    assert np.abs(expected - without).max() > 0.05, "the prompt changes scores"
    np.testing.assert_allclose(scores(ours), expected, rtol=0, atol=1e-4)


def test_openvino_reads_the_prompt_as_torch_does(tmp_path):
    folder = with_prompt(tmp_path, "bert")
    ours = scorer(folder, OPENVINO)
    assert isinstance(ours.runtime, PairEngine)
    np.testing.assert_allclose(scores(ours), predicted(folder), rtol=0, atol=1e-4)


def test_the_prompt_counts_where_tokens_are_counted(prompted):
    """A pair that fits without it is cut with it, and what the budget is told grows by it."""
    _, folder = prompted
    tokenizer = CrossEncoder(str(folder), device="cpu").tokenizer
    query, document = "river stone winter garden", "cloud paper engine alpha beta gamma delta"
    whole = len(tokenizer(PROMPT + query, document)["input_ids"])
    for limit, cut in ((whole - 1, True), (whole, False)):
        ours = scorer(folder, max_length=limit)
        tally.drain()
        assert ours.score([query], [[document]]).truncated[0].tolist() == [cut]
        assert tally.drain().sums[tally.TOKENS] == limit


def test_the_prompt_stays_whole_with_the_query_where_only_documents_are_cut(tmp_path):
    folder = with_prompt(tmp_path, "bert")
    query, document = "river stone", "alpha beta " * 40
    model = CrossEncoder(str(folder), device="cpu")
    asked = len(model.tokenizer(PROMPT + query)["input_ids"])
    limit = asked + 7  # six tokens of the document and one more separator
    ours = scorer(folder, max_length=limit, truncation="only_second").score([query], [[document]])
    ids = model.tokenizer(
        PROMPT + query, document, truncation="only_second", max_length=limit, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model.transformers_model.eval()(**ids).logits.item()
    assert ours.values[0][0] == pytest.approx(expected, abs=1e-4)
    assert ours.truncated[0].tolist() == [True]


def test_texts_far_beyond_the_maximum_length_score_as_predict_scores_them_behind_a_prompt(tmp_path):
    folder = with_prompt(tmp_path, "deberta")
    texts = [" ".join(sentences(1, seed=n, words=n)) for n in (3, 150, 400, 401, 900)]
    texts += ["river " * n for n in (280, 281, 560, 700)]
    ours = scores(scorer(folder), texts, texts)
    np.testing.assert_allclose(ours, predicted(folder, texts, texts), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", ["bert", "deberta"])
def test_a_prompt_that_leaves_no_room_is_refused(tmp_path, shape):
    folder = with_prompt(tmp_path, shape, prompt="river stone " * 40)
    with pytest.raises(ModelError, match=r"prompt of \d+ tokens.*reranker\.max_length"):
        scorer(folder)


def test_the_fallback_is_held_to_predict(tmp_path, monkeypatch):
    """Whatever it might leave out: here the prompt, as it once did."""
    folder = with_prompt(tmp_path, "deberta")
    monkeypatch.setattr("rerank_batch.scoring.library.default_prompt", lambda model: "")
    with pytest.raises(ModelError, match=r"does not score in fp32 as by CrossEncoder\.predict"):
        scorer(folder)


def test_the_fallback_is_told_in_the_summary_of_the_run(prompted):
    shape, folder = prompted
    tally.drain()
    scorer(folder)
    noticed = [
        what for what in tally.drain().counts if "is scored by sentence-transformers" in what
    ]
    assert len(noticed) == (RUNTIMES[shape] is Library)


def test_another_prompt_is_another_model(tmp_path):
    """For the fingerprint of a run and for the score cache."""
    one = with_prompt(tmp_path, "bert")
    two = shutil.copytree(one, tmp_path / "two")
    edit(two, prompts={"web": "garden: "})
    found = [
        scorer_input(1, ModelName("cross-encoder", str(folder)), ScorerConfig(model="x"))
        for folder in (one, two)
    ]
    assert found[0].made_of != found[1].made_of
    assert [each.prompts["web"] for each in found] == [PROMPT, "garden: "]


def test_a_model_that_reads_chats_gets_its_prompt_as_the_system_message(tmp_path):
    base = tiny_models.write_qwen3_reranker(tmp_path / "base")
    edit(base, "tokenizer_config.json", model_max_length=72, pad_token="<|im_end|>")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    (base / "chat_template.jinja").write_text(template)
    model = CrossEncoder(str(base), device="cpu", prompts={"w": "river?"}, default_prompt_name="w")
    model.save_pretrained(str(tmp_path / "chat"))
    ours = scorer(tmp_path / "chat")
    assert isinstance(ours.runtime, Library)
    expected = predicted(tmp_path / "chat")
    without = predicted(tmp_path / "chat", prompt="")
    assert np.abs(expected - without).max() > 0.05
    np.testing.assert_allclose(scores(ours), expected, rtol=0, atol=1e-4)
    rows = {
        n: len(model.preprocess([("a", "b" * n)], prompt="river?")["input_ids"][0]) for n in (1, 9)
    }
    fits = 1 + 72 - rows[1]
    cut = ours.score(["a"], [["b" * fits, "b" * (fits + 1)]]).truncated[0]
    assert cut.tolist() == [False, True]


def test_stored_arguments_are_those_of_predict_and_a_setting_goes_before_them(tmp_path):
    folder = write_model(tmp_path / "base", "deberta")
    model = CrossEncoder(str(folder), device="cpu")
    model[0].processing_kwargs = {"text": {"max_length": 20}}
    model.save_pretrained(str(tmp_path / "kept"))
    ours = scorer(tmp_path / "kept")
    np.testing.assert_allclose(scores(ours), predicted(tmp_path / "kept"), rtol=0, atol=1e-4)
    texts = ["river " * n for n in (1, 40)]
    assert ours.score(["stone"], [texts]).truncated[0].tolist() == [False, True]
    longer = scorer(tmp_path / "kept", max_length=60)
    expected = predicted(folder, max_length=60)
    np.testing.assert_allclose(scores(longer), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["linear.Identity", "activation.Sigmoid", "activation.Tanh"])
def test_an_activation_that_keeps_the_order_is_left_out(tiny_cross_encoder, tmp_path, name):
    folder = shutil.copytree(tiny_cross_encoder, tmp_path / "model")
    edit(folder, "config.json", sentence_transformers={"activation_fn": f"torch.nn.modules.{name}"})
    np.testing.assert_allclose(scores(scorer(folder)), predicted(folder), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["SiLU", "Softmax", "Softmin", "GLU"])
def test_an_activation_that_gives_another_order_is_refused_by_name(
    tiny_cross_encoder, tmp_path, name
):
    folder = shutil.copytree(tiny_cross_encoder, tmp_path / "model")
    edit(folder, "config.json", sbert_ce_default_activation_function=f"torch.nn.{name}")
    with pytest.raises(ModelError, match=name):
        scorer(folder)


@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_an_activation_of_foreign_code_is_refused_by_name(tiny_cross_encoder, tmp_path, file):
    folder = tmp_path / "model"
    CrossEncoder(str(tiny_cross_encoder), device="cpu").save_pretrained(str(folder))
    named = {"activation_fn": "modeling_mine.Minus"}
    edit(folder, file, **({"sentence_transformers": named} if file == "config.json" else named))
    with pytest.raises(ModelError, match=rf"{file} names the activation 'modeling_mine\.Minus'"):
        scorer(folder)


def test_late_interaction_reads_the_prompts_of_a_bi_encoder(tiny_bi_encoder, tmp_path):
    """Queries and documents each behind their own, as the model encodes them."""
    model = SentenceTransformer(str(tiny_bi_encoder), device="cpu")
    model.prompts = {"query": "winter garden: ", "document": "paper: "}
    model.save_pretrained(str(tmp_path))
    name = ModelName("late-interaction", str(tmp_path))
    assert choose_mode(name, ScorerOptions(runtime="torch")).mode == TORCH
    ours = load_scorer(name, ScorerOptions(mode=TORCH)).score(QUERIES[:3], [DOCUMENTS] * 3)

    def tokens(text, task, special):
        encode = model.encode_query if task == "query" else model.encode_document
        vectors = encode([text], output_value="token_embeddings", show_progress_bar=False)[0]
        vectors = torch.nn.functional.normalize(vectors, dim=-1).numpy()
        return vectors if special else vectors[1:-1]

    for query, values in zip(QUERIES, ours.values, strict=False):
        for document, value in zip(DOCUMENTS, values, strict=True):
            best = tokens(query, "query", False) @ tokens(document, "document", True).T
            assert value == pytest.approx(best.max(axis=1).mean(), abs=1e-5)


@pytest.mark.parametrize("family", ["qwen3-reranker", "mxbai-v2", "bge-gemma"])
def test_a_stored_prompt_is_refused_by_families_with_prompts_of_their_own(
    folders, tmp_path, family
):
    """Unless the user says what the family is to be told."""
    folder = shutil.copytree(folders[family], tmp_path / "model")
    stored = {"prompts": {"w": "Find laws"}, "default_prompt_name": "w"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stored))
    name = ModelName(family, str(folder))
    for use in (choose_mode, load_scorer):
        with pytest.raises(ModelError, match="stores the prompt 'Find laws'"):
            use(name, ScorerOptions())
    if family != "bge-gemma":
        load_scorer(name, ScorerOptions(mode=TORCH, instruction="Find laws"))
