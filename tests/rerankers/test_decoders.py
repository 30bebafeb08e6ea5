"""Decoder rerankers against their rules: the whole prompt, all logits, one pair at a time."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.bge_gemma import BgeGemmaScorer
from rerank_batch.rerankers.mxbai_v2 import MxbaiV2Scorer
from rerank_batch.rerankers.qwen3_reranker import Qwen3RerankerScorer
from rerank_batch.scoring.decoder import Decoder
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.runtimes.base import Unavailable
from tests.conftest import sentences
from tests.support import tiny_models

OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))
FAMILIES = ("qwen3-reranker", "mxbai-v2", "bge-gemma", "bge-layerwise")
# Texts that a tokenizer could join with what stands beside them, and of very different lengths.
QUERIES = ["what is it?", "alpha", "", " river\n", *sentences(2, seed=4, words=30)]
DOCUMENTS = [
    "",
    " ",
    "\n\nalpha",
    "a",
    ":>",
    "1 river",
    "日本 naïve",
    *sentences(5, seed=5, words=60),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    writers = {name: getattr(tiny_models, f"write_{name.replace('-', '_')}") for name in FAMILIES}
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in writers.items()}


def loaded(folders, family, **options):
    return load_scorer(ModelName(family, str(folders[family])), replace(OPTIONS, **options))


def qwen3_ids(tokenizer, query, document, instruction, max_length):
    """As the model card does it."""

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    before = encode(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    )
    after = encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    told = instruction or (
        "Given a web search query, retrieve relevant passages that answer the query"
    )
    pair = encode(f"<Instruct>: {told}\n<Query>: {query}\n<Document>: {document}")
    return before + pair[: (max_length or 640) - len(before) - len(after)] + after


def mxbai_ids(tokenizer, query, document, instruction, max_length):
    """As the package mxbai-rerank does it."""

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    before = encode(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    )
    task = encode(
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant)."
        "\nRelevance:"
    )
    after = encode("\n") + task + encode("<|im_end|>\n<|im_start|>assistant\n")
    limit = min(max_length or 8192, 640 - len(before) - len(after))
    asked = f"query: {query}"
    if instruction:
        asked = f"instruction: {instruction}\n{asked}"
    first = encode(asked)[: limit * 3 // 4]
    second = encode("\n") + encode(f"document: {document}")
    return before + first + second[: limit - len(first)] + after


def bge_ids(tokenizer, query, document, instruction, max_length):
    """As the model card does it, which knows no instruction."""

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    question = encode(
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    after = encode("\n") + question
    limit = min(max_length or 1024, 640 - len(after))
    first = [tokenizer.bos_token_id, *encode(f"A: {query}")[: limit * 3 // 4]]
    second = encode("\n") + encode(f"B: {document}")
    return first + second[: limit - len(first)] + after


IDS = {
    "qwen3-reranker": qwen3_ids,
    "mxbai-v2": mxbai_ids,
    "bge-gemma": bge_ids,
    "bge-layerwise": bge_ids,
}
TOKENS = {"qwen3-reranker": ("yes", "no"), "mxbai-v2": ("1", "0"), "bge-gemma": ("Yes", None)}


def expected(folder, family, query, documents, instruction=None, max_length=None, layer=4):
    """Scores by the rule, in one batch that is padded on the left."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    rows = [IDS[family](tokenizer, query, text, instruction, max_length) for text in documents]
    if family == "bge-layerwise":
        return [tiny_models.naive_minicpm(folder, row, layer) for row in rows]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    more, less = TOKENS[family]
    scores = logits[:, tokenizer.convert_tokens_to_ids(more)]
    if less:
        scores = scores - logits[:, tokenizer.convert_tokens_to_ids(less)]
    return scores.tolist()


@pytest.mark.parametrize("max_length", [None, 420])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_follow_from_the_whole_prompt_and_all_logits(folders, family, max_length):
    """Of several queries and lengths, cut and uncut."""
    scored = loaded(folders, family, max_length=max_length).score(
        QUERIES, [DOCUMENTS] * len(QUERIES)
    )
    theirs = [
        expected(folders[family], family, query, DOCUMENTS, max_length=max_length)
        for query in QUERIES
    ]
    assert np.ptp(theirs) > 1, "the model tells the pairs apart"
    np.testing.assert_allclose(scored.values, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_too_long_is_cut_and_flagged(folders, family):
    """A document at its end, and a query only where it takes the document's room."""
    long = " ".join(["river"] * 300)
    scored = loaded(folders, family).score(["alpha", long], [["beta", long], ["beta"]])
    assert [cut.tolist() for cut in scored.truncated] == [[False, True], [True]]
    theirs = expected(folders[family], family, "alpha", ["beta", long])
    np.testing.assert_allclose(scored.values[0], theirs, rtol=1e-4, atol=1e-4)
    theirs = expected(folders[family], family, long, ["beta"])
    np.testing.assert_allclose(scored.values[1], theirs, rtol=1e-4, atol=1e-4)


def test_the_qwen3_prompt_character_by_character(folders):
    """And what is a token of its own in it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["qwen3-reranker"])
    prompts = Qwen3RerankerScorer._tokenizer(folders["qwen3-reranker"], OPTIONS)
    (prompt,) = prompts.prompts(["a river?"], [["some stone"]])
    ids = [*prompt.prefix, *prompt.bodies[0], *prompts.after]
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\n"
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: a river?\n"
        "<Document>: some stone<|im_end|>\n"
        "<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )
    names = tokenizer.convert_ids_to_tokens(ids)
    assert [name for name in names if name.endswith(">") and len(name) > 2] == [
        *("<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>"),
        *("<think>", "</think>"),
    ]
    assert names[-3:] == ["ĊĊ", "</think>", "ĊĊ"]
    assert ids == qwen3_ids(tokenizer, "a river?", "some stone", None, None)


def test_the_mxbai_prompt_character_by_character(folders):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["mxbai-v2"])
    prompts = MxbaiV2Scorer._tokenizer(folders["mxbai-v2"], replace(OPTIONS, instruction="go"))
    (prompt,) = prompts.prompts(["a river?"], [["some stone"]])
    ids = [*prompt.prefix, *prompt.bodies[0], *prompts.after]
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\n"
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
        "instruction: go\n"
        "query: a river?\n"
        "document: some stone\n"
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ids == mxbai_ids(tokenizer, "a river?", "some stone", "go", None)


def test_the_bge_prompt_character_by_character(folders):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["bge-gemma"])
    prompts = BgeGemmaScorer._tokenizer(folders["bge-gemma"], OPTIONS)
    (prompt,) = prompts.prompts(["a river?"], [["some stone"]])
    ids = [*prompt.prefix, *prompt.bodies[0], *prompts.after]
    assert tokenizer.decode(ids) == (
        "<bos>A: a river?\nB: some stone\nGiven a query A and a passage B, determine whether the "
        "passage contains an answer to the query by providing a prediction of either 'Yes' or 'No'."
    )
    assert ids == bge_ids(tokenizer, "a river?", "some stone", None, None)


@pytest.mark.parametrize("family", ["qwen3-reranker", "mxbai-v2"])
def test_an_instruction_is_part_of_the_prompt(folders, family):
    told = "Find the stone"
    scored = loaded(folders, family, instruction=told).score(["alpha"], [DOCUMENTS])
    theirs = expected(folders[family], family, "alpha", DOCUMENTS, instruction=told)
    np.testing.assert_allclose(scored.values[0], theirs, rtol=1e-4, atol=1e-4)
    without = loaded(folders, family).score(["alpha"], [DOCUMENTS])
    assert np.abs(scored.values[0] - without.values[0]).max() > 0.01


@pytest.mark.parametrize(
    ("family", "control"),
    [
        ("qwen3-reranker", ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|endoftext|>"]),
        ("mxbai-v2", ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
        ("bge-gemma", ["<bos>", "<eos>", "<pad>", "<mask>"]),
        ("bge-layerwise", ["<s>", "</s>", "<unk>"]),
    ],
)
def test_texts_cannot_spell_control_tokens(folders, family, control):
    scorer = loaded(folders, family)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders[family])
    ids = tokenizer.convert_tokens_to_ids(control)
    assert len(set(ids)) == len(control)
    text = " ".join(control) + "".join(control)
    (prompt,) = scorer._engine.tokenizer.prompts([text], [[text]])
    (plain,) = scorer._engine.tokenizer.prompts(["alpha"], [["alpha"]])
    for token in ids:
        assert (prompt.prefix == token).sum() == (plain.prefix == token).sum()
        assert token not in prompt.bodies[0]
    assert tokenizer.decode(prompt.bodies[0]).endswith(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_query_shares_is_computed_once_and_changes_no_score(folders, family, monkeypatch):
    scorer = loaded(folders, family, batch_tokens=1200)
    read, score, prefixes, rows = Decoder.read, Decoder.score, [], []

    def count_prefix(decoder, prefix):
        prefixes.append(len(prefix))
        return read(decoder, prefix)

    def count_rows(decoder, batch, prefix=None):
        rows.append((len(batch), max(map(len, batch))))
        return score(decoder, batch, prefix)

    monkeypatch.setattr(Decoder, "read", count_prefix)
    monkeypatch.setattr(Decoder, "score", count_rows)
    together = scorer.score(["alpha", "beta"], [DOCUMENTS, DOCUMENTS[:1]])
    assert len(prefixes) == 1, "the query with one document is read in one piece"
    assert len(rows) > 2, "several batches go on from one prefix"
    # Either the prefix counts for each of its rows, or a batch holds a single one.
    behind = [(n, longest + prefixes[0]) for n, longest in rows[1:]]
    assert all(n * longest <= 1200 or n == 1 for n, longest in behind)
    prefixes.clear()
    apart = [scorer.score(["alpha"], [[text]]).values[0][0] for text in DOCUMENTS]
    assert not prefixes
    np.testing.assert_allclose(together.values[0], apart, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_stay_what_they_are_where_memory_runs_out(folders, family, monkeypatch):
    known = loaded(folders, family).score(QUERIES, [DOCUMENTS] * len(QUERIES))
    other = loaded(folders, family)
    score, failed = Decoder.score, []

    def short_of_memory(decoder, rows, prefix=None):
        if len(rows) > 1:
            failed.append(len(rows))
            raise torch.OutOfMemoryError("out of memory")
        return score(decoder, rows, prefix)

    monkeypatch.setattr(Decoder, "score", short_of_memory)
    scored = other.score(QUERIES, [DOCUMENTS] * len(QUERIES))
    assert failed
    np.testing.assert_allclose(scored.values, known.values, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_multiplied_with_the_whole_vocabulary(folders, family, monkeypatch):
    forward, widths = torch.nn.Linear.forward, set()

    def watched(layer, x):
        widths.add(layer.out_features)
        return forward(layer, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    loaded(folders, family).score(["alpha"], [DOCUMENTS])
    assert widths and max(widths) <= 64


@pytest.mark.parametrize("layer", [2, 3, 4])
def test_layerwise_scores_are_those_of_the_layer_and_none_above_is_computed(
    folders, layer, monkeypatch
):
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    scorer = loaded(folders, "bge-layerwise", layer=layer)
    forward, computed = LlamaDecoderLayer.forward, set()

    def watched(decoder_layer, *args, **kwargs):
        computed.add(decoder_layer.self_attn.layer_idx)
        return forward(decoder_layer, *args, **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", watched)
    scored = scorer.score(["a river"], [DOCUMENTS])
    assert computed == set(range(layer))
    theirs = expected(folders["bge-layerwise"], "bge-layerwise", "a river", DOCUMENTS, layer=layer)
    np.testing.assert_allclose(scored.values[0], theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [1, 5])
def test_a_layer_without_a_head_is_refused(folders, layer):
    with pytest.raises(ModelError, match=f"layer: {layer} has no head; choose one from 2 to 4"):
        loaded(folders, "bge-layerwise", layer=layer)


def test_heads_over_the_vocabulary_are_refused(folders, tmp_path):
    shutil.copytree(folders["bge-layerwise"], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "head_type": "raw"}))
    with pytest.raises(ModelError, match="not one vector for each layer"):
        load_scorer(ModelName("bge-layerwise", str(tmp_path)), OPTIONS)


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_weights_are_refused_and_not_made_up(folders, family, tmp_path):
    shutil.copytree(folders[family], tmp_path, dirs_exist_ok=True)
    for file in tmp_path.glob("*.safetensors"):
        weights = load_file(file)
        if weights.pop("model.norm.weight", None) is not None:
            save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights do not fit: .*norm\.weight is missing"):
        load_scorer(ModelName(family, str(tmp_path)), OPTIONS)


def test_a_model_of_another_family_is_refused(folders):
    with pytest.raises(ModelError, match="does not load as a Qwen3ForCausalLM"):
        load_scorer(ModelName("qwen3-reranker", str(folders["mxbai-v2"])), OPTIONS)
    with pytest.raises(ModelError, match="'yes' is no token there"):
        load_scorer(ModelName("qwen3-reranker", str(folders["bge-gemma"])), OPTIONS)
    with pytest.raises(ModelError, match="does not load as a layerwise MiniCPM"):
        load_scorer(ModelName("bge-layerwise", str(folders["bge-gemma"])), OPTIONS)


def test_a_length_that_the_prompt_alone_exceeds_is_refused(folders):
    with pytest.raises(ModelError, match="the prompt alone takes all of it"):
        loaded(folders, "qwen3-reranker", max_length=64)


def test_bfloat16_is_measured_only_where_it_is_allowed(folders):
    name = ModelName("qwen3-reranker", str(folders["qwen3-reranker"]))
    assert choose_mode(name, ScorerOptions()).tokens_per_second == {}
    assert choose_mode(name, ScorerOptions()).mode == Mode("torch", "fp32")
    measured = choose_mode(name, ScorerOptions(allow=("bf16", "int8")))
    assert set(measured.tokens_per_second) == {"torch fp32", "torch bf16"}
    with pytest.raises(Unavailable):
        choose_mode(name, ScorerOptions(runtime="openvino"))


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_near_float32(folders, family):
    known = loaded(folders, family).score(["alpha"], [DOCUMENTS]).values[0]
    half = loaded(folders, family, mode=Mode("torch", "bf16")).score(["alpha"], [DOCUMENTS])
    assert half.values[0].dtype == np.float32
    assert 0 < np.abs(half.values[0] - known).max() < 0.3 * np.ptp(known)
