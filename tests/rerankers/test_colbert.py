"""ColBERT checkpoints, scored from their raw files as colbert-ai and PyLate would score them."""

import json
import string
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertModel, BertTokenizerFast

from rerank_batch.models.fingerprint import model_fingerprint
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.colbert import is_colbert
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.runtimes.base import Unavailable
from tests.conftest import sentences
from tests.support import tiny_models

OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))
QUERIES = ["river, stone?", "alpha", "", *sentences(2, seed=6, words=30)]
DOCUMENTS = ["alpha. beta, gamma!", "", "...", "river stone", *sentences(5, seed=7, words=60)]
FORMS = {
    "colbert-ai": {"ends": (1, 2), "skipped": string.punctuation},
    "pylate": {"ends": ("[Q] ", "[D] "), "skipped": ",.?"},
    "pylate-attending": {"ends": ("[Q] ", "[D] "), "skipped": ",.?", "attend": True},
    "pylate-plain": {"ends": ("[Q] ", "[D] "), "skipped": string.punctuation, "expand": False},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {form: tmp_path_factory.mktemp(form) for form in FORMS}
    tiny_models.write_colbert(made["colbert-ai"])
    tiny_models.write_pylate(made["pylate"])
    tiny_models.write_pylate(
        made["pylate-attending"], attend_to_expansion_tokens=True, model_type="ColBERT"
    )
    # Without a list of its own a checkpoint leaves out all punctuation.
    tiny_models.write_pylate(made["pylate-plain"], do_query_expansion=False, skiplist_words=None)
    return made


def scorer(folder, **options):
    return load_scorer(ModelName("late-interaction", str(folder)), replace(OPTIONS, **options))


def expected(folder, form, query, document, limit=40):
    """One pair from the raw weights: ids put together by hand, one text at a time, no padding."""
    rule = FORMS[form]
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
    projection = bare.pop("linear.weight", None)
    if projection is None:
        projection = load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"]
    model = BertModel.from_pretrained(
        None, config=_config(folder), state_dict=bare, attn_implementation="eager"
    ).eval()
    marks = [
        mark if isinstance(mark, int) else tokenizer.convert_tokens_to_ids(mark)
        for mark in rule["ends"]
    ]
    start, end, blank = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id

    def vectors(ids, read):
        with torch.inference_mode():
            states = model(torch.tensor([ids]), attention_mask=torch.tensor([read]))[0][0]
        return torch.nn.functional.normalize(states @ projection.T, dim=-1)

    def words(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    asked = [start, marks[0], *words(query)[: 16 - 3], end]
    fill = 16 - len(asked) if rule.get("expand", True) else 0
    seen = [1] * len(asked) + [int(rule.get("attend", False))] * fill
    q = vectors(asked + [blank] * fill, seen)
    read = [start, marks[1], *words(document)[: limit - 3], end]
    skipped = tokenizer.convert_tokens_to_ids(list(rule["skipped"]))
    d = vectors(read, [1] * len(read))[[token not in skipped for token in read]]
    return float((q @ d.T).max(dim=1).values.sum())


def _config(folder):
    from transformers import BertConfig

    settings = json.loads((folder / "config.json").read_text())
    return BertConfig(**{**settings, "architectures": None})


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_sums_of_the_best_cosines_by_the_checkpoints_rule(folders, form):
    scored = scorer(folders[form]).score(QUERIES, [DOCUMENTS] * len(QUERIES))
    theirs = [
        [expected(folders[form], form, query, document) for document in DOCUMENTS]
        for query in QUERIES
    ]
    assert np.ptp(theirs) > 1, "the model tells the pairs apart"
    np.testing.assert_allclose(scored.values, theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_is_flagged_to_the_token(folders, form):
    """Forty tokens of a document fit, marker and ends included, and sixteen of a query."""
    texts = {n: " ".join(["river"] * n) for n in (13, 14, 37, 38)}
    scored = scorer(folders[form]).score(
        [texts[13], texts[14]], [[texts[37], texts[38]], ["alpha"]]
    )
    assert [cut.tolist() for cut in scored.truncated] == [[False, True], [True]]


def test_a_maximum_length_cuts_documents(folders):
    text = " ".join(sentences(6, seed=8))
    scored = scorer(folders["pylate"], max_length=12).score(["alpha"], [[text, "beta"]])
    assert scored.truncated[0].tolist() == [True, False]
    theirs = [expected(folders["pylate"], "pylate", "alpha", t, limit=12) for t in (text, "beta")]
    np.testing.assert_allclose(scored.values[0], theirs, rtol=0, atol=5e-5)


def test_the_settings_of_a_checkpoint_are_part_of_its_fingerprint(tmp_path):
    folder = tiny_models.write_colbert(tmp_path)
    before = model_fingerprint(folder)
    settings = json.loads((folder / "artifact.metadata").read_text())
    (folder / "artifact.metadata").write_text(json.dumps({**settings, "query_maxlen": 20}))
    assert model_fingerprint(folder) != before


def test_a_plain_bi_encoder_is_no_colbert(folders, tiny_bi_encoder):
    assert not is_colbert(tiny_bi_encoder)
    assert all(is_colbert(folder) for folder in folders.values())


def test_colbert_models_run_by_torch_alone(folders):
    name = ModelName("late-interaction", str(folders["pylate"]))
    assert choose_mode(name, ScorerOptions()).mode == Mode("torch", "fp32")
    with pytest.raises(Unavailable, match="not by openvino"):
        choose_mode(name, ScorerOptions(runtime="openvino"))
