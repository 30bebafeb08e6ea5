"""What every reranker keeps, whatever its family: `pytest -v` prints the families and the checks.

Families with weights run tiny random models of their architecture, services a loopback server that
speaks their wire shape, by way of the scorer that a job puts around them.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rerank_batch.errors import ModelError, ServiceError
from rerank_batch.models.location import ModelName
from rerank_batch.progress import pairs
from rerank_batch.rerankers import FAMILIES, is_listwise, load_scorer, open_service
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.rerankers.paid import PaidScorer, PaidUse
from rerank_batch.scoring.modes import Mode
from rerank_batch.services.address import SERVICES
from rerank_batch.storage import open_root
from tests.conftest import sentences
from tests.services.server import KEY, Canned, ServiceServer

OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))
QUERIES = sentences(6, seed=10)
LISTS = [sentences(n, seed=20 + n, words=60) for n in (7, 0, 1, 12, 3, 5)]
CLOSE = {"rtol": 0, "atol": 2e-5}

VARIANTS = {"late-interaction": ["", "colbert"], "llm": ["yes-no", "grade", "listwise"]}
MODELS = [f"{family} {kind}".strip() for family in FAMILIES for kind in VARIANTS.get(family, [""])]


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A family, or a kind of model within it."""
    return request.param


@pytest.fixture(scope="module")
def server(model) -> Iterator[ServiceServer | None]:
    """The service of the family, and the environment pointing at it; None for weights."""
    family = model.partition(" ")[0]
    if not FAMILIES[family].service:
        yield None
        return
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        server = stack.enter_context(ServiceServer(family))
        prefix = "/v1" if family == "llm" else ""
        environment.setenv(SERVICES[family].url_variable, server.url + prefix)
        environment.setenv(SERVICES[family].key_variables[0], KEY)
        yield server


@pytest.fixture(scope="module")
def load(model, server, folders, tmp_path_factory) -> Callable[..., PairScorer]:
    """Opens a scorer of the model with such options; services remember nothing of before."""
    family, _, kind = model.partition(" ")

    def opened(**options: Any) -> PairScorer:
        if server is None:
            return load_scorer(ModelName(family, str(folders[model])), replace(OPTIONS, **options))
        given = {"method": kind, **options} if kind else options
        root = open_root(str(tmp_path_factory.mktemp("journal")))
        service = open_service(ModelName(family, "any"), replace(OPTIONS, **given))
        return PaidScorer(service, PaidUse(root, "runs/one/", 1))

    return opened


@pytest.fixture(scope="module")
def scorer(load):
    return load()


def test_one_score_for_each_document_in_the_order_given(scorer):
    scored = scorer.score(QUERIES, LISTS)
    assert [len(values) for values in scored.values] == [len(listed) for listed in LISTS]
    assert [len(cut) for cut in scored.truncated] == [len(listed) for listed in LISTS]
    assert max(np.ptp(values) for values in scored.values if len(values)) > 0
    assert all(values.dtype == np.float32 for values in scored.values)
    assert not scored.fell_back


def test_every_pair_is_told_once_as_it_is_scored(load, monkeypatch):
    """Also where a text stands twice, which is scored once."""
    queries = [*QUERIES, "river", QUERIES[3]]
    lists = [*LISTS, [LISTS[0][0], LISTS[0][1], LISTS[0][0]], LISTS[3]]
    scorer = load()
    scored, known = [], []
    monkeypatch.setattr(pairs, "scored", scored.append)
    monkeypatch.setattr(pairs, "known", known.append)
    scorer.score(queries, lists)
    assert sum(scored) + sum(known) == sum(map(len, lists))
    assert sum(scored) >= sum(map(len, LISTS)), "nothing was known before"


def test_turning_the_documents_round_turns_the_scores_round(scorer, model):
    """Of a listwise model that orders them right as well, but for documents that are as good."""
    distinct = [[" ".join(["river", "stone", "cloud"][:n]) for n in (3, 1, 2, 0)]]
    forth = scorer.score(["river stone cloud"], distinct).values[0]
    back = scorer.score(["river stone cloud"], [distinct[0][::-1]]).values[0]
    np.testing.assert_allclose(forth, back[::-1], **CLOSE)


@settings(max_examples=8, deadline=None)
@given(budget=st.integers(64, 4096), seed=st.integers(0, 1000))
def test_scores_do_not_depend_on_batch_size_or_company(load, scorer, budget, seed):
    """The same queries in other batches, in another order, beside others."""
    alone = [scorer.score([q], [d]).values[0] for q, d in zip(QUERIES, LISTS, strict=True)]
    other = load(batch_tokens=budget)
    order = np.random.default_rng(seed).permutation(len(QUERIES))
    mixed = other.score([QUERIES[i] for i in order], [LISTS[i] for i in order])
    for position, i in enumerate(order):
        np.testing.assert_allclose(mixed.values[position], alone[i], **CLOSE)


def test_a_pair_scores_the_same_wherever_and_however_often_it_stands(scorer, model):
    family, _, kind = model.partition(" ")
    if is_listwise(ModelName(family, "any"), kind or "yes-no"):
        scored = scorer.score(["river"] * 2, [["cloud", "river"]] * 2)
        np.testing.assert_array_equal(*scored.values)
        return
    scored = scorer.score(["river stone"] * 2, [["cloud", "paper", "cloud"], ["paper", "cloud"]])
    first, second = scored.values
    np.testing.assert_allclose([first[0], first[1]], [first[2], second[0]], **CLOSE)
    np.testing.assert_allclose(first[0], second[1], **CLOSE)


@pytest.mark.parametrize("text", ["", "   ", "日本語 naïve Ω\u200b", "x" * 5000, "\x00\ufffd"])
def test_odd_documents_and_queries_get_finite_scores(scorer, text):
    scored = scorer.score([text or "alpha", "alpha"], [["alpha", text], [text]])
    assert all(np.isfinite(values).all() for values in scored.values)
    assert not scored.fell_back


def test_no_queries_and_no_documents_are_fine(scorer):
    assert scorer.score([], []).values == []
    assert [len(v) for v in scorer.score(["alpha"], [[]]).values] == [0]


def test_one_document_and_a_thousand(scorer):
    """More than most services take in a call; the thousand-and-first query is as the first."""
    many = [f"{words} {n}" for n, words in enumerate(sentences(1000, seed=5, words=3))]
    scored = scorer.score(["river stone", "river stone"], [many, many[:1]])
    assert [len(values) for values in scored.values] == [1000, 1]
    assert np.isfinite(scored.values[0]).all()
    assert not scored.fell_back


def test_truncation_is_flagged_for_the_pairs_it_touches(load, server):
    """Services take more characters than these models take tokens: there they are told where."""
    scorer = load() if server is None else load(max_chars=1000)
    long = " ".join(["river"] * 300)
    scored = scorer.score(["alpha", "alpha", long], [["beta"], ["beta", long], ["beta"]])
    assert [pairs.tolist() for pairs in scored.truncated] == [[False], [False, True], [True]]


def test_an_interrupt_stops_it_at_once_and_leaves_it_usable(load, server):
    scorer, many = load(), sentences(1000, seed=7, words=60)
    expected = scorer.score(["river"], [["stone", "river"]]).values[0]
    if server is not None:
        server.faults, server.slow_seconds = {"slow": 1.0}, 5.0
    try:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt), interrupted_after(0.3):
            scorer.score(sentences(40, seed=8), [many] * 40)
        assert time.monotonic() - began < 4
    finally:
        if server is not None:
            server.faults = {}
    again = scorer.score(["river"], [["stone", "river"]]).values[0]
    np.testing.assert_allclose(again, expected, **CLOSE)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """A Ctrl-C, as Ray sends it to a worker whose task is cancelled."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # hypothesis listens to it, and what is raised in a listener is lost
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


def test_another_kind_of_model_is_refused_in_clear_words(model, load, server, tmp_path):
    family = model.partition(" ")[0]
    if server is None:
        (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
        save_file({}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match="does not load"):
            load_scorer(ModelName(family, str(tmp_path)), OPTIONS)
        return
    server.canned = lambda body: Canned(404, b'{"message": "no such model"}')
    try:
        with pytest.raises(ServiceError, match=rf"{family} at .* HTTP 404: no such model"):
            load().score(["river"], [["stone", "cloud"]])
    finally:
        server.canned = lambda body: None
