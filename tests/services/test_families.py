"""Every family against a service of its wire shape: all scores, the true ones, and all bills."""

import functools
import json
import subprocess
import sys
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

from rerank_batch.config import PriceConfig, ServiceConfig
from rerank_batch.errors import ConfigError, ServiceError, SpendCapReached
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import FAMILIES, family_of, open_service
from rerank_batch.rerankers import http as service
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage, pair_tokens, tokens_of
from tests.conftest import sentences
from tests.services.server import FAULTS, KEY, ROUTES, Canned, Rate, ServiceServer, score

OPTIONS = ScorerOptions(service=ServiceConfig(requests_per_minute=100_000, attempts=20))
QUERIES = sentences(40, seed=1)
LISTS = [[*sentences(n % 17, seed=n), *([""] if n % 5 == 1 else [])] for n in range(40)]
FAULTY = dict.fromkeys(FAULTS, 0.2 / len(FAULTS))

HTTP = ("cohere", "infinity", "jina", "tei", "vllm", "voyage")

pytestmark = pytest.mark.usefixtures("no_waits")


@pytest.fixture(params=HTTP)
def family(request):
    return request.param


def opened(family, **options):
    return open_service(ModelName(family, "some-model"), replace(OPTIONS, **options))


def true_scores(family, query, documents):
    blank = opened(family).empty
    return np.array([score(query, text or blank) for text in documents], np.float32)


def taken(answers):
    """By the number of the query; each is answered once."""
    found = {}
    for answer in answers:
        assert answer.query not in found
        found[answer.query] = answer
    return found


def total(answers):
    return sum((answer.used for answer in answers.values()), Usage())


def test_all_families_that_are_services_are_tried_here():
    assert set(HTTP) <= {name for name, family in FAMILIES.items() if family.service}
    assert not family_of(ModelName("cross-encoder", "x")).service


def test_a_server_that_takes_fewer_documents_is_sent_no_more(serve):
    """A list is divided, and its scores are those of one call."""
    server = serve("tei")
    few = ServiceConfig(requests_per_minute=100_000, documents_per_call=5)
    documents = sentences(18, seed=3)
    (answer,) = opened("tei", service=few).answers(["alpha"], [documents], Budget(None))
    assert [len(call.body["texts"]) for call in server.calls] == [5, 5, 5, 3]
    np.testing.assert_array_equal(answer.values, true_scores("tei", "alpha", documents))


def test_a_call_that_is_refused_says_how_large_it_was_and_what_makes_it_smaller(serve):
    server = serve("tei")
    server.canned = lambda body: Canned(413, b'{"error": "batch size 20 > maximum 8"}')
    with pytest.raises(ServiceError) as error:
        list(opened("tei").answers(["alpha"], [["beta river"] * 20], Budget(None)))
    said = str(error.value)
    assert "answered POST /rerank with HTTP 413: batch size 20 > maximum 8. " in said
    assert "held 20 documents" in said
    assert "reranker.service.documents_per_call" in said


@pytest.mark.parametrize("faults", [{}, FAULTY], ids=["well", "faulty"])
def test_every_query_is_answered_by_the_scores_of_the_service(serve, family, faults):
    server = serve(family, faults=faults, seed=836)
    budget = Budget(PriceConfig(request=1.0, search_unit=10.0, million_tokens=1000.0))
    answers = taken(opened(family).answers(QUERIES * 3, LISTS * 3, budget))
    assert sorted(answers) == list(range(120))
    for number, answer in answers.items():
        query, documents = (QUERIES * 3)[number], (LISTS * 3)[number]
        assert answer.values.dtype == np.float32
        np.testing.assert_array_equal(answer.values, true_scores(family, query, documents))
        assert answer.truncated.tolist() == [False] * len(documents)
        assert not answer.fell_back
    counted, used = server.summary(), total(answers)
    if faults:
        assert set(counted["faults"]) == set(FAULTS), "each of them happened"
        assert sum(counted["faults"].values()) > 20
    assert used.unread == counted["faults"].get("garbage", 0)
    assert replace(used, unread=0) == server.billed
    assert budget.spent == pytest.approx(server.billed.cost(budget._price))


def test_a_query_without_documents_costs_no_call(serve, family):
    server = serve(family)
    answers = taken(opened(family).answers(["a", "b"], [[], []], Budget()))
    assert [len(answers[number].values) for number in (0, 1)] == [0, 0]
    assert total(answers) == Usage()
    assert server.calls == []
    assert taken(opened(family).answers([], [], Budget())) == {}


def test_long_lists_are_split_and_merged(serve, family):
    server = serve(family)
    limit = ROUTES[family].most
    documents = sentences(max(1000, limit + 500), seed=9)
    [answer] = opened(family).answers(["river stone"], [documents], Budget())
    np.testing.assert_array_equal(answer.values, true_scores(family, "river stone", documents))
    sent = [len(call.body.get("documents") or call.body["texts"]) for call in server.calls]
    assert sum(sent) == len(documents)
    assert len(sent) == -(-len(documents) // limit)
    assert max(sent) == limit
    assert answer.used == server.billed


def test_calls_stay_within_the_tokens_a_call_may_have(serve):
    server = serve("voyage")
    settings = ServiceConfig(requests_per_minute=100_000, tokens_per_minute=100_000_000)
    documents = ["river" * 2000] * 500
    [answer] = opened("voyage", service=settings).answers(["stone"], [documents], Budget())
    np.testing.assert_array_equal(answer.values, true_scores("voyage", "stone", documents))
    calls = [pair_tokens("stone", call.body["documents"]) for call in server.calls]
    assert len(calls) == 3
    assert max(calls) <= 600_000


def test_calls_stay_within_the_tokens_that_this_scorer_may_use_in_a_minute(serve, monkeypatch):
    monkeypatch.setattr(service, "Pace", functools.partial(Pace, minute=0.3))
    server = serve("jina", rate=Rate(tokens=1000, minute=0.3))
    settings = ServiceConfig(requests_per_minute=100_000, tokens_per_minute=4000)
    documents = ["river stone"] * 300
    scorer = opened("jina", service=settings, sharers=4)
    [answer] = scorer.answers(["stone"], [documents], Budget())
    assert len(answer.values) == 300
    assert len(server.calls) == 2
    assert server.violations == []


def test_texts_are_cut_and_their_pairs_flagged(serve, family):
    server = serve(family)
    documents = ["é" * 20, "x" * 21, "short", ""]
    [answer] = opened(family, max_chars=20).answers(["river"], [documents], Budget())
    assert answer.truncated.tolist() == [False, True, False, False]
    kept = [text[:20] for text in documents]
    np.testing.assert_array_equal(answer.values, true_scores(family, "river", kept))
    [answer] = opened(family, max_chars=20).answers(["r" * 21], [["a", "b"]], Budget())
    assert answer.truncated.tolist() == [True, True]
    assert server.calls[-1].body["query"] == "r" * 20
    megabyte = "river stone " * 90_000
    [answer] = opened(family).answers(["river"], [[megabyte]], Budget())
    assert answer.truncated.tolist() == [True]
    assert len(str(server.calls[-1].body)) < 11_000


def test_the_rate_is_kept_by_all_who_share_the_key(serve, family, monkeypatch):
    """Two scorers with half of the rate each, over a window that slides."""
    monkeypatch.setattr(service, "Pace", functools.partial(Pace, minute=0.5))
    server = serve(family, rate=Rate(requests=40, minute=0.5), faults=FAULTY, seed=5)
    server.retry_after = "0.01"
    server.slow_seconds = 0.05
    settings = ServiceConfig(requests_per_minute=40, attempts=20)
    scorers = [opened(family, service=settings, sharers=2) for _ in range(2)]
    both = zip(
        *(scorer.answers(QUERIES, [["a", "b"]] * 40, Budget()) for scorer in scorers), strict=True
    )
    assert len(list(both)) == 40
    assert server.violations == []
    arrived = [call.arrived for call in server.calls]
    assert arrived[-1] - arrived[0] > 0.5, "or no limit was met"


def test_stated_limits_hold_without_any_setting(serve):
    serve("voyage")
    scorer = opened("voyage", service=ServiceConfig(), sharers=10)
    assert (scorer._pace._most_requests, scorer._pace._most_tokens) == (200, 200_000)
    with pytest.raises(ConfigError, match=r"501 scorers: set compute\.scorers lower"):
        opened("voyage", service=ServiceConfig(requests_per_minute=500), sharers=501)


@pytest.mark.parametrize("fault", ["short", "twice", "nan", "garbage"])
def test_an_answer_that_is_wrong_every_time_is_never_taken(serve, family, fault):
    serve(family, faults={fault: 1.0})
    scorer = opened(family, service=ServiceConfig(attempts=2))
    with pytest.raises(ServiceError, match=f"{family}: 2 tries"):
        list(scorer.answers(["stone"], [["a", "b", "c"]], Budget()))


@pytest.mark.parametrize(
    "results",
    [
        [{"index": 0, "key": 1.0}, {"index": 2, "key": 1.0}],
        [{"index": 0, "key": 1.0}, {"index": -1, "key": 1.0}],
        [{"index": 0, "key": 1.0}, {"index": 1.0, "key": 1.0}],
        [{"index": 0, "key": 1.0}, {"index": True, "key": 1.0}],
        [{"index": 0, "key": 1.0}, {"index": "1", "key": 1.0}],
        [{"index": 0, "key": 1.0}, {"index": 1, "key": "0.5"}],
        [{"index": 0, "key": 1.0}, {"index": 1, "key": None}],
        [{"index": 0, "key": 1.0}, {"index": 1, "key": 1e300}],
        [{"index": 0, "key": 1.0}, {"index": 1}],
        [{"index": 0, "key": 1.0}, {"index": 1, "key": 1.0}, {"index": 1, "key": 1.0}],
        [{"index": 0, "key": 1.0}, 1],
        {"0": 1.0, "1": 1.0},
        None,
    ],
)
def test_results_that_cannot_be_right_are_refused(serve, family, results):
    server, route = serve(family), ROUTES[family]
    whole = results if route.results is None else {route.results: results}
    raw = json.dumps(whole).replace('"key"', f'"{route.score}"').encode()
    server.canned = lambda body: Canned(200, raw)
    scorer = opened(family, service=ServiceConfig(attempts=2))
    with pytest.raises(ServiceError, match="2 tries"):
        list(scorer.answers(["stone"], [["a", "b"]], Budget()))


def test_an_answer_without_a_bill_costs_as_expected(serve):
    server = serve("cohere")
    results = b'{"results": [{"index": 0, "relevance_score": 1}]}'
    server.canned = lambda body: Canned(200, results)
    [answer] = opened("cohere").answers(["stone"], [["a"]], Budget())
    assert answer.used == Usage(requests=1, search_units=1)


def test_all_that_was_paid_for_is_yielded_before_the_cap_stops(serve):
    server = serve("cohere")
    budget = Budget(PriceConfig(search_unit=1.0), cap=25.0)
    found = {}

    def take():
        for answer in opened("cohere").answers(QUERIES, [["a"] * 150] * 40, budget):
            found[answer.query] = answer

    with pytest.raises(SpendCapReached):
        take()
    assert len(found) == 12
    assert server.billed.search_units == total(found).search_units == budget.spent == 24


def test_an_address_that_is_refused_is_told_when_the_scorer_is_opened(environment):
    environment.setenv("TEI_BASE_URL", "https://169.254.169.254")
    with pytest.raises(ServiceError, match="never called"):
        opened("tei")
    environment.delenv("TEI_BASE_URL")
    with pytest.raises(ConfigError, match="TEI_BASE_URL"):
        opened("tei")


def test_tokens_are_rather_thought_too_many_than_too_few():
    assert tokens_of("") == 0
    assert tokens_of("four") == 2
    assert tokens_of("川川川") == 3
    assert pair_tokens("four", ["four", "川川川"]) == 9


def test_another_process_can_be_the_service(environment):
    """What tests of whole jobs use."""
    command = [sys.executable, "-m", "tests.services.server", "--family", "tei", "--faults", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            environment.setenv("TEI_BASE_URL", url)
            environment.setenv("TEI_API_KEY", KEY)
            answers = taken(opened("tei").answers(QUERIES, LISTS, Budget()))
            assert len(answers) == 40
            with urllib.request.urlopen(f"{url}/summary") as summary:
                assert b'"violations": []' in summary.read()
        finally:
            process.terminate()


def test_the_service_draws_the_same_faults_from_the_same_seed():
    drawn = []
    for _ in range(2):
        with ServiceServer("tei", faults=FAULTY, seed=7) as server:
            drawn.append([server._draw() for _ in range(500)])
    assert drawn[0] == drawn[1]
    assert 60 < sum(fault is not None for fault in drawn[0]) < 140
