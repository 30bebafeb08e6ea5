"""The engine gives what sentence-transformers gives, whatever the model's shape and the runtime."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank_batch.errors import ModelError
from rerank_batch.progress import pairs
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer
from rerank_batch.scoring import engine as engine_module
from rerank_batch.scoring.engine import PairEngine
from rerank_batch.scoring.library import Library
from rerank_batch.scoring.measure_modes import choose
from rerank_batch.scoring.modes import Graphs, Mode, modes_for
from rerank_batch.scoring.networks.layout import Even
from rerank_batch.scoring.networks.network import pair_network
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import Unavailable
from rerank_batch.scoring.runtimes.openvino import OpenVinoRuntime
from rerank_batch.scoring.runtimes.torch import TorchRuntime
from rerank_batch.scoring.tokens import PairTokenizer
from tests.conftest import sentences
from tests.scoring import first_arrays
from tests.scoring.models import SHAPES, write_model
from tests.support.processor import openvino_formats

TORCH, OPENVINO = Mode("torch", "fp32"), Mode("openvino", "fp32")

ODD = [
    "",
    " ",
    "Ünïcode, 東京 and\ttabs",
    "\x00\ufffd",
    "🤖" * 9,
    "<pad> [SEP] </s>",
    "e\u0301\u200b",
]
QUERIES = [*sentences(4, seed=1), "river " * 90, *ODD[:3]]
DOCUMENTS = [*sentences(5, seed=2, words=30), *sentences(2, seed=3, words=300), *ODD]


@pytest.fixture(scope="module", params=SHAPES)
def model(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp(request.param), request.param)


def scorer(folder, mode=TORCH, **options):
    return CrossEncoderScorer(folder, ScorerOptions(mode=mode, **options))


def opened_here(folder, mode):
    """The scorer in that mode; a test of a format that this processor refuses is skipped."""
    try:
        return scorer(folder, mode)
    except Unavailable as error:
        assert mode.format not in openvino_formats(), "this processor can do it"
        return pytest.skip(str(error))


def scores(made, queries=QUERIES, documents=DOCUMENTS):
    return np.concatenate(made.score(queries, [documents] * len(queries)).values)


def predicted(folder, queries=QUERIES, documents=DOCUMENTS, max_length=None):
    model = CrossEncoder(str(folder), device="cpu", max_length=max_length)
    pairs = [(query, document) for query in queries for document in documents]
    return model.predict(pairs, activation_fn=torch.nn.Identity())


@pytest.mark.parametrize(
    ("mode", "max_length"), [(TORCH, None), (TORCH, 21), (TORCH, 22), (OPENVINO, None)], ids=str
)
def test_logits_are_those_of_predict(model, mode, max_length):
    ours = scorer(model, mode, max_length=max_length)
    assert isinstance(ours.runtime, PairEngine), "no fallback"
    expected = predicted(model, max_length=max_length)
    assert np.ptp(expected) > 0.3, "the model tells the pairs apart"
    np.testing.assert_allclose(scores(ours), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", [Mode("openvino", "int8"), Mode("torch", "bf16")], ids=str)
def test_a_format_that_loses_digits_keeps_the_order_but_for_close_calls(tmp_path, mode):
    folder = write_model(tmp_path, "bert")
    exact, close = scores(scorer(folder)), scores(opened_here(folder, mode))
    assert np.abs(close - exact).max() > 1e-5, "other numbers than fp32"
    assert np.abs(close - exact).max() < 0.1 * np.ptp(exact)
    assert np.corrcoef(close, exact)[0, 1] > 0.99


@pytest.mark.parametrize("mode", [pytest.param(TORCH, marks=pytest.mark.slow), OPENVINO], ids=str)
def test_ten_thousand_pairs_are_those_of_predict(tmp_path, mode):
    folder = write_model(tmp_path, "bert")
    rng = np.random.default_rng(0)
    texts = [*ODD, *(" ".join(sentences(1, seed=n, words=rng.integers(1, 90))) for n in range(93))]
    queries, documents = texts, rng.permutation(texts).tolist()
    expected = predicted(folder, queries, documents)
    assert len(expected) == 10_000
    np.testing.assert_allclose(
        scores(scorer(folder, mode), queries, documents), expected, rtol=0, atol=1e-4
    )


def test_texts_one_behind_the_other_give_what_they_give_side_by_side(model):
    """The layout of GPUs, on the CPU: texts of all lengths in a batch, nothing padded."""
    theirs = CrossEncoder(str(model), device="cpu")
    network = pair_network(theirs.transformers_model).eval()
    tokenizer = PairTokenizer(theirs.tokenizer, 70, network.position_of_padding)
    even, packed = (
        PairEngine(tokenizer, TorchRuntime(network, "fp32", "cpu", packed), TokenBudget(2048))
        for packed in (False, True)
    )
    lists = [DOCUMENTS] * len(QUERIES)
    np.testing.assert_allclose(
        packed.score(QUERIES, lists)[0], even.score(QUERIES, lists)[0], atol=2e-5
    )


@pytest.mark.parametrize("format", ["fp32", "bf16", "int8"])
def test_by_openvino_a_score_does_not_depend_on_the_company(tmp_path, format):
    """To the last bit: what lets a cached score stand for one that is computed tonight.

    On a processor where a format cannot promise that, it is not used.
    """
    folder = write_model(tmp_path, "bert")
    ours = opened_here(folder, Mode("openvino", format))
    rng = np.random.default_rng(0)
    documents = [*DOCUMENTS, *sentences(40, seed=5, words=9)]
    whole = scores(ours, QUERIES, documents).reshape(len(QUERIES), -1)
    for size in (1, 2, 3, 7, 30):
        some = rng.choice(len(documents), size, replace=False)
        listed = [documents[number] for number in some]
        np.testing.assert_array_equal(
            scores(ours, QUERIES[1:3], listed).reshape(2, -1), whole[1:3, some]
        )


@pytest.mark.parametrize("threads", [2, 5])
def test_by_openvino_every_thread_gives_what_one_thread_gives(tmp_path, threads):
    """To the last bit, and in order: threads work on batches of their own, which end as they do."""
    folder = write_model(tmp_path, "bert")
    alone = scores(scorer(folder, OPENVINO, threads=1, batch_tokens=64))
    several = scorer(folder, OPENVINO, threads=threads, batch_tokens=64)
    assert several.runtime.runtime.ahead == threads
    for _ in range(5):
        np.testing.assert_array_equal(scores(several), alone)


def test_what_fails_in_a_thread_is_raised_and_leaves_room_for_the_next(tmp_path, monkeypatch):
    made = scorer(write_model(tmp_path, "bert"), OPENVINO, threads=2, batch_tokens=64)
    good = scores(made)
    runtime = made.runtime.runtime
    with monkeypatch.context() as patched:
        patched.setattr(runtime, "_of_thread", Fails())
        with pytest.raises(RuntimeError, match="no more"):
            scores(made)
    np.testing.assert_array_equal(scores(made), good)


class Fails:
    """In the place of a thread's own things: its network fails on every batch."""

    @property
    def request(self):
        raise RuntimeError("no more")


def test_windows_of_few_pairs_give_the_same(model, monkeypatch):
    ours = scorer(model)
    whole = scores(ours)
    monkeypatch.setattr(engine_module, "_WINDOW_PAIRS", 5)
    np.testing.assert_allclose(scores(ours), whole, atol=2e-5)
    lists = [[], DOCUMENTS[:7], [], [], DOCUMENTS[:1], []]
    some = ours.score(QUERIES[:6], lists)
    assert [len(values) for values in some.values] == [len(listed) for listed in lists]


def test_a_pair_that_comes_twice_is_computed_once(tmp_path, monkeypatch):
    ours = scorer(write_model(tmp_path, "bert"))
    run, rows = ours.runtime.runtime.run, []
    monkeypatch.setattr(
        ours.runtime.runtime, "run", lambda batch: rows.append(len(batch.lengths)) or run(batch)
    )
    twice = ours.score(["river", "stone", "river"], [["a", "b", "a"], ["a"], ["b", "c"]])
    assert sum(rows) == 4
    first, _, third = twice.values
    assert first[0] == first[2]
    assert first[1] == third[0]


def test_only_second_keeps_the_query_whole(tmp_path):
    folder = write_model(tmp_path, "bert")
    query, document = "river stone cloud paper", "alpha beta " * 40
    cut = scorer(folder, max_length=16, truncation="only_second")
    special = 3
    room = 16 - special - len(query.split())
    short = " ".join(document.split()[:room])
    whole = scorer(folder)
    a, b = cut.score([query], [[document]]), whole.score([query], [[short]])
    assert a.truncated[0].tolist() == [True]
    np.testing.assert_allclose(a.values[0], b.values[0], atol=1e-5)


def test_a_model_of_an_unknown_shape_is_scored_by_sentence_transformers(
    tmp_path, caplog, monkeypatch
):
    from transformers import ElectraConfig, ElectraForSequenceClassification

    from tests.conftest import bert_config, build_tokenizer

    build_tokenizer().save_pretrained(tmp_path)
    known = {k: v for k, v in bert_config().to_dict().items() if "size" in k or "num" in k}
    torch.manual_seed(0)
    ElectraForSequenceClassification(
        ElectraConfig(**known, num_labels=1, max_position_embeddings=64, embedding_size=32)
    ).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        ours = scorer(tmp_path)
    assert isinstance(ours.runtime, Library)
    assert "ElectraForSequenceClassification is none of" in caplog.text
    told: list[int] = []
    monkeypatch.setattr(pairs, "scored", told.append)
    found = scores(ours)
    np.testing.assert_allclose(found, predicted(tmp_path), atol=1e-4)
    assert sum(told) == len(found)
    with pytest.raises(ModelError, match="our engine knows"):
        scorer(tmp_path, Mode("openvino", "int8"))


def test_an_engine_that_gives_other_logits_is_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Even, "first", lambda self, hidden: hidden[:, 1:2], raising=True)
    with caplog.at_level(logging.WARNING):
        ours = scorer(write_model(tmp_path, "bert"))
    assert isinstance(ours.runtime, Library)
    assert "where the model gives" in caplog.text


def test_an_exported_network_is_kept_under_the_models_fingerprint(tmp_path):
    folder = write_model(tmp_path / "model", "bert")
    first = scores(scorer(folder, OPENVINO, graphs=Graphs(tmp_path / "graphs", "print")))
    (kept,) = [path for path in (tmp_path / "graphs").iterdir() if path.is_dir()]
    before = (kept / "graph.bin").stat().st_mtime_ns
    again = scores(scorer(folder, OPENVINO, graphs=Graphs(tmp_path / "graphs", "print")))
    np.testing.assert_array_equal(again, first)
    assert (kept / "graph.bin").stat().st_mtime_ns == before
    (kept / "graph.xml").write_text("damaged")
    mended = scores(scorer(folder, OPENVINO, graphs=Graphs(tmp_path / "graphs", "print")))
    np.testing.assert_array_equal(mended, first)


def test_threads_that_are_first_to_use_a_kept_network_do_not_wait_for_each_other(tmp_path):
    """They did, now and then, before one thread made OpenVINO's binding look numpy up."""
    folder, graphs = write_model(tmp_path / "model", "bert"), tmp_path / "graphs"
    OpenVinoRuntime(first_arrays.read_network(folder), "fp32", 2, Graphs(graphs, "print"))
    command = [sys.executable, "-m", "tests.scoring.first_arrays", str(folder), str(graphs)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0"]


def test_auto_takes_no_lossy_format_that_is_not_allowed():
    assert {m.format for m in modes_for("auto", (), "auto", "cpu")} == {"fp32"}
    assert {m.format for m in modes_for("auto", ("bf16",), "auto", "cuda")} == {"fp32", "bf16"}
    assert {m.format for m in modes_for("fp32", ("bf16",), "auto", "cpu")} == {"fp32"}
    assert [str(m) for m in modes_for("int8", (), "openvino", "cpu")] == [
        "openvino fp32",
        "openvino int8",
    ]


class Sleeper:
    """A runtime that takes so long."""

    ahead = 1

    def __init__(self, seconds):
        self.seconds = seconds

    def run(self, batch):
        import time

        time.sleep(self.seconds)

    def fetch(self, pending):
        return []


def test_the_fastest_mode_that_there_is_is_chosen():
    modes = modes_for("auto", ("bf16", "int8"), "auto", "cpu")
    seconds = {"openvino fp32": 0.02, "torch fp32": 0.05, "openvino bf16": 0.01, "torch bf16": 0.2}

    def opened(mode):
        if str(mode) not in seconds:
            raise Unavailable("not here")
        return Sleeper(seconds[str(mode)])

    choice = choose(modes, opened)
    assert choice.mode == Mode("openvino", "bf16")
    assert set(choice.tokens_per_second) == set(seconds)
    del seconds["openvino bf16"]
    assert choose(modes, opened).mode == Mode("openvino", "fp32")
    seconds.clear()
    with pytest.raises(Unavailable, match="torch bf16: not here"):
        choose(modes, opened)
