"""The client over a real socket: what is tried again, what ends, what is counted, what is said."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from email.utils import formatdate

import pytest

from rerank_batch.config import PriceConfig, ServiceConfig
from rerank_batch.errors import ConfigError, ServiceError, SpendCapReached
from rerank_batch.services import client as client_module
from rerank_batch.services.address import address_of
from rerank_batch.services.client import Client, Malformed, Request
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage
from tests.services.server import KEY, Canned, Rate, ServiceServer

QUERY = "where does the river of the canary begin"
DOCUMENTS = ["a stone", "the river begins at the stone of the canary"]
BODY = {"model": "m", "query": QUERY, "documents": DOCUMENTS}
REQUEST = Request("/v2/rerank", BODY, (QUERY, *DOCUMENTS), Usage(search_units=1))


def read(answer):
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    used = Usage(search_units=int(answer["meta"]["billed_units"]["search_units"]))
    if scores.keys() != {0, 1}:
        raise Malformed("not every document", used)
    return scores, used


def opened(budget=None, pace=None, **settings):
    return Client(
        address_of("cohere"), pace or Pace(), ServiceConfig(**settings), budget or Budget()
    )


def ask(client, count=1, request=REQUEST):
    """``count`` times the same call."""

    async def one(number):
        return await client.call(request, read)

    return client.in_parallel(count, one)


def answers(*replies):
    """These, one after the other; then what the service says by itself."""
    left = list(replies)
    return lambda body: left.pop(0) if left else None


# --- tried again -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(
    "fault", ["too_many", "failed", "unavailable", "reset", "garbage", "short", "twice"]
)
def test_what_fails_for_a_time_is_tried_again(serve, fault):
    server = serve("cohere", faults={fault: 0.5}, seed=4)
    budget = Budget(PriceConfig(search_unit=2.0))
    results = list(ask(opened(budget, concurrency=4, attempts=20), 30))
    assert len(results) == 30
    failed = server.summary()["faults"][fault]
    assert failed > 10
    assert len(server.calls) == 30 + failed
    used = sum((used for _, used in results), Usage())
    assert used.unread == (failed if fault == "garbage" else 0)
    assert (used.requests, used.search_units) == (
        server.billed.requests,
        server.billed.search_units,
    )
    assert used.search_units == 30 + (failed if fault in ("short", "twice") else 0)
    assert budget.spent == pytest.approx(2.0 * used.search_units)


@pytest.mark.usefixtures("no_waits")
def test_a_service_that_is_too_slow_is_tried_again(serve):
    server = serve("cohere", faults={"slow": 0.5}, seed=1)
    server.slow_seconds = 5.0
    began = time.monotonic()
    assert len(list(ask(opened(timeout_seconds=0.2, attempts=20), 8))) == 8
    assert len(server.calls) > 8
    assert time.monotonic() - began < 4


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("fault", ["too_many", "failed", "reset", "garbage"])
def test_tries_are_bounded(serve, fault):
    server = serve("cohere", faults={fault: 1.0})
    server.retry_after = "0"
    with pytest.raises(ServiceError, match=r"cohere: 3 tries of POST /v2/rerank .* came to noth"):
        list(ask(opened(attempts=3)))
    assert len(server.calls) == 3


@pytest.mark.usefixtures("no_waits")
def test_a_service_that_is_not_there_ends_in_an_error(serve):
    server = serve("cohere")
    client = opened(attempts=3)
    server.__exit__()
    with pytest.raises(ServiceError, match=r"3 tries .*ConnectError"):
        list(ask(client))


def test_tries_of_one_call_wait_longer_and_longer(serve):
    server = serve("cohere", faults={"failed": 1.0})
    with pytest.raises(ServiceError):
        list(ask(opened(attempts=3)))
    first, second, third = (call.arrived for call in server.calls)
    assert second - first > 0.49
    assert third - second > 0.99


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize(("status", "form"), [(429, "seconds"), (503, "date")])
def test_retry_after_is_waited_for_by_all_calls(serve, status, form):
    server = serve("cohere")
    wait = "0.6" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.canned = answers(Canned(status, b"{}", {"Retry-After": wait}))
    assert len(list(ask(opened(concurrency=1), 3))) == 3
    waited = server.calls[1].arrived - server.calls[0].arrived
    assert (0.6 if form == "seconds" else 0.9) <= waited < 2.5

    async def two(number):
        await asyncio.sleep(0.2 * number)
        return await client.call(REQUEST, read)

    client = opened(concurrency=2)
    server.canned = answers(Canned(status, b"{}", {"Retry-After": "0.8"}))
    list(client.in_parallel(2, two))
    late = [call.arrived - server.calls[4].arrived for call in server.calls[5:]]
    assert len(late) == 2
    assert min(late) >= 0.8, "the other call waits too"


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("value", ["", "soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "²"])
def test_a_retry_after_that_says_nothing_is_no_wait(serve, value):
    server = serve("cohere")
    server.canned = answers(Canned(503, b"{}", {"Retry-After": value.encode().decode("latin-1")}))
    began = time.monotonic()
    assert len(list(ask(opened()))) == 1
    assert time.monotonic() - began < 1


def test_a_service_that_asks_for_hours_refuses(serve):
    server = serve("cohere")
    server.canned = answers(Canned(429, b'{"message": "monthly quota"}', {"Retry-After": "86400"}))
    with pytest.raises(ServiceError, match="asks to wait 86400 s: HTTP 429: monthly quota"):
        list(ask(opened()))
    assert len(server.calls) == 1


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("body", [b"", b"null", b"[" * 100_000, b'{"results": 7}', b"\xff"])
def test_answers_of_no_known_form_are_counted_as_unread(serve, body):
    server = serve("cohere")
    server.canned = answers(Canned(200, body))

    def reading(answer):
        if not isinstance(answer, dict) or not isinstance(answer["results"], list):
            raise ValueError
        return read(answer)

    async def one(number):
        return await client.call(REQUEST, reading)

    client = opened()
    [(_, used)] = client.in_parallel(1, one)
    assert used == Usage(requests=1, search_units=1, unread=1)


@pytest.mark.usefixtures("no_waits")
def test_the_size_of_an_answer_is_bounded(serve, monkeypatch):
    monkeypatch.setattr(client_module, "MOST_BYTES", 10_000)
    server = serve("cohere")
    server.canned = lambda body: Canned(200, b" " * 20_000)
    with pytest.raises(ServiceError, match="an answer of more than 10000 bytes"):
        list(ask(opened(attempts=2)))


# --- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 424])
def test_a_refusal_ends_at_once_with_the_words_of_the_service(serve, status):
    server = serve("cohere")
    said = b'{"message": "the model\\u0007 \\nis\\u001b[31m unknown", "id": "x"}'
    server.canned = lambda body: Canned(status, said)
    with pytest.raises(ServiceError) as failure:
        list(ask(opened()))
    assert f"cohere at {server.url.removeprefix('http://')}" in str(failure.value)
    assert f"HTTP {status}: the model is [31m unknown" in str(failure.value)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"message": f"cannot rank {QUERY!r}"},
        {"detail": [{"loc": ["query"], "msg": f"too long: {QUERY[:30]}…"}]},
        {"error": {"message": f"near '{DOCUMENTS[1][10:35].upper()}'"}},
        {"error": "\n".join(QUERY)},
        {"error": f"{QUERY}".replace(" ", "   ")},
        {"message": f"the key {KEY} is not known"},
        {"message": f"document '{DOCUMENTS[0]}' is too short"},
        {"input": QUERY},
        {"message": "x" * 190 + " " * 5000 + QUERY},
        QUERY,
    ],
)
def test_a_refusal_that_quotes_the_request_or_the_key_is_not_repeated(serve, said):
    server = serve("cohere")
    raw = json.dumps(said).encode()
    server.canned = lambda body: Canned(400, raw)
    with pytest.raises(ServiceError) as failure:
        list(ask(opened()))
    assert str(failure.value).endswith("with HTTP 400")


def test_a_quotation_is_found_in_any_script(serve):
    server = serve("cohere")
    query = "自分の川はどこから始まりますか教えてください"
    request = Request("/v2/rerank", {**BODY, "query": query}, (query,))
    raw = json.dumps({"message": f"bad: {json.dumps(query)}"})
    server.canned = lambda body: Canned(400, raw.encode())
    with pytest.raises(ServiceError) as failure:
        list(ask(opened(), request=request))
    assert str(failure.value).endswith("with HTTP 400")


@pytest.mark.usefixtures("no_waits")
def test_what_is_no_http_is_not_repeated(serve, environment):
    serve("cohere")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def quote():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(f"{QUERY}\r\n\r\n".encode())

        thread = threading.Thread(target=quote)
        thread.start()
        environment.setenv("COHERE_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ServiceError, match=r"the last one: RemoteProtocolError$"):
            list(ask(opened(attempts=2)))
        thread.join()


def test_a_long_refusal_is_cut(serve):
    server = serve("cohere")
    server.canned = lambda body: Canned(400, b'{"message": "' + b"no " * 5000 + b'"}')
    with pytest.raises(ServiceError) as failure:
        list(ask(opened()))
    assert len(str(failure.value).split("HTTP 400: ")[1]) <= 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve, status):
    with ServiceServer("cohere") as elsewhere:
        server = serve("cohere")
        there = f"{elsewhere.url}/v2/rerank"
        server.canned = lambda body: Canned(status, b"", {"Location": there})
        with pytest.raises(ServiceError, match=f"HTTP {status}, a redirect, and none is followed"):
            list(ask(opened()))
        assert elsewhere.calls == []
        assert len(server.calls) == 1


def test_a_wrong_key_is_refused_and_told_without_it(serve, environment, capfd, caplog):
    caplog.set_level("DEBUG")
    serve("cohere")
    environment.setenv("CO_API_KEY", "canary0key")
    with pytest.raises(ServiceError, match="HTTP 401: invalid api token") as failure:
        list(ask(opened()))
    shown = capfd.readouterr()
    said = f"{failure.value!r}{caplog.text}{shown.out}{shown.err}"
    assert "canary0key" not in said
    assert QUERY not in said


# --- where calls go ----------------------------------------------------------------------------


def test_a_call_goes_to_the_address_that_was_checked(serve, environment):
    """The name means the metadata service as soon as it was looked up once."""
    server = serve("cohere")
    port = int(server.url.rpartition(":")[2])
    environment.setenv("COHERE_BASE_URL", f"http://rebound.test:{port}")
    meanings = iter(["127.0.0.1"])
    asked = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        ip = next(meanings, "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    environment.setattr(socket, "getaddrinfo", getaddrinfo)
    client = opened()
    assert len(list(ask(client, 5))) == 5
    assert {call.host for call in server.calls} == {f"rebound.test:{port}"}
    assert asked == ["rebound.test"]
    with pytest.raises(ServiceError, match=r"rebound\.test is 169\.254\.169\.254"):
        list(ask(client))
    assert len(server.calls) == 5


def test_an_address_that_does_not_answer_is_followed_by_the_next(serve, environment):
    server = serve("cohere")
    port = int(server.url.rpartition(":")[2])
    environment.setenv("COHERE_BASE_URL", f"http://service.test:{port}")
    ips = ["127.0.0.2", "127.0.0.1"]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]
    environment.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert len(list(ask(opened(attempts=1), 20))) == 20
    assert len(server.calls) == 20


@pytest.mark.usefixtures("no_waits")
def test_a_name_is_looked_up_again_where_that_failed(serve, environment):
    server = serve("cohere")
    getaddrinfo, failures = socket.getaddrinfo, [socket.gaierror(-3, "Temporary failure")] * 2

    def sometimes(*arguments, **named):
        if failures:
            raise failures.pop()
        return getaddrinfo(*arguments, **named)

    environment.setattr(socket, "getaddrinfo", sometimes)
    assert len(list(ask(opened(attempts=3)))) == 1
    assert len(server.calls) == 1


def test_proxies_of_the_environment_are_ignored(serve, environment):
    serve("cohere")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        environment.setenv(name, "http://127.0.0.1:1")
    assert len(list(ask(opened(attempts=1)))) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate by openssl")
@pytest.mark.parametrize("named", ["service.test", "other.test"])
def test_the_certificate_must_be_that_of_the_name(serve, environment, tmp_path, named):
    server = serve("cohere")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key)]
    command += [
        "-out",
        str(certificate),
        "-subj",
        "/CN=x",
        "-addext",
        f"subjectAltName=DNS:{named}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.speak_tls(context)
    environment.setenv("SSL_CERT_FILE", str(certificate))
    environment.setattr(client_module, "_tls", client_module._tls.__wrapped__)
    port = int(server.url.rpartition(":")[2])
    environment.setenv("COHERE_BASE_URL", f"https://service.test:{port}")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    environment.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    if named == "service.test":
        assert len(list(ask(opened(attempts=1)))) == 1
    else:
        with pytest.raises(ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
            list(ask(opened(attempts=1)))
        assert server.calls == []


# --- money -------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 8])
def test_all_that_was_paid_for_is_yielded_before_the_cap_stops(serve, concurrency):
    server = serve("cohere")
    budget = Budget(PriceConfig(search_unit=1.0, request=0.5), cap=15.0)
    got = []
    with pytest.raises(SpendCapReached):
        got.extend(ask(opened(budget, concurrency=concurrency), 30))
    with pytest.raises(SpendCapReached):
        for result in ask(opened(budget, concurrency=concurrency), 30):
            got.append(result)
    assert server.billed == Usage(requests=10, search_units=10)
    assert budget.spent == 15.0


@pytest.mark.usefixtures("no_waits")
def test_a_try_that_was_billed_for_nothing_counts_against_the_cap(serve):
    server = serve("cohere", faults={"short": 1.0})
    budget = Budget(PriceConfig(search_unit=1.0), cap=3.0)
    with pytest.raises(SpendCapReached):
        list(ask(opened(budget, attempts=10)))
    assert server.billed.search_units == budget.spent == 3


def test_a_refusal_and_a_failure_free_what_was_reserved(serve):
    server = serve("cohere")
    server.canned = answers(Canned(400), Canned(400))
    budget = Budget(PriceConfig(search_unit=1.0), cap=1.0)
    for _ in range(2):
        with pytest.raises(ServiceError):
            list(ask(opened(budget)))
    assert len(list(ask(opened(budget)))) == 1


# --- side by side ------------------------------------------------------------------------------


def test_the_rate_of_requests_and_tokens_is_kept_across_windows(serve):
    server = serve("voyage", rate=Rate(40, 600, minute=1.0))
    pace = Pace(40, 600, minute=1.0)
    body = {"model": "m", "query": "four", "documents": ["x" * 76]}
    request = Request("/v1/rerank", body, (), Usage(tokens=20))

    async def one(number):
        return await client.call(request, lambda answer: (number, Usage()))

    client = Client(address_of("voyage"), pace, ServiceConfig(), Budget())
    began = time.monotonic()
    got = [number for _ in range(3) for number, _ in client.in_parallel(25, one)]
    assert sorted(got) == sorted([*range(25)] * 3)
    assert server.violations == []
    assert 1.5 < time.monotonic() - began < 4, "75 calls, 30 a minute by their tokens"


def test_a_call_beyond_the_pace_is_an_error(serve):
    serve("cohere")
    request = Request("/v2/rerank", BODY, (), Usage(tokens=100))
    with pytest.raises(ConfigError, match="tokens_per_minute"):
        list(ask(opened(pace=Pace(None, 10)), request=request))


def test_results_come_as_they_are_done_and_so_many_at_a_time(serve):
    serve("cohere")
    running = most = 0

    async def one(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.3 if number == 0 else 0.02)
        running -= 1
        return number

    got = list(opened(concurrency=3).in_parallel(10, one))
    assert sorted(got) == list(range(10))
    assert got[-1] == 0
    assert most == 3
    assert list(opened().in_parallel(0, one)) == []


def test_after_an_error_nothing_is_begun_and_what_is_under_way_is_yielded(serve):
    serve("cohere")
    begun, got = [], []

    async def one(number):
        begun.append(number)
        await asyncio.sleep(0.05 * (number + 1))
        if number in (0, 2):
            raise ServiceError(f"number {number}")
        return number

    def take():
        for number in opened(concurrency=4).in_parallel(20, one):
            got.append(number)

    with pytest.raises(ServiceError, match="number 0"):
        take()
    assert begun == [0, 1, 2, 3]
    assert got == [1, 3]


@pytest.fixture
def interrupts():
    """SIGINT as in a terminal; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_cancels_at_once_and_leaves_nothing_behind(serve):
    server = serve("cohere", faults={"slow": 1.0})
    server.slow_seconds = 30.0
    budget = Budget(PriceConfig(search_unit=1.0), cap=1000.0)
    cancelled = []

    async def one(number):
        try:
            return await client.call(REQUEST, read)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    client = opened(budget, concurrency=5)
    before = own_threads()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(client.in_parallel(9, one))
    assert time.monotonic() - began < 2
    assert sorted(cancelled) == [0, 1, 2, 3, 4]
    assert own_threads() == before
    assert budget._under_way == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_end_before_the_last_result_cancels_the_rest(serve):
    server = serve("cohere")
    before = own_threads()
    results = ask(opened(concurrency=4), 100)
    next(results)
    results.close()
    assert own_threads() == before
    assert len(server.calls) < 10


def own_threads():
    return {thread.name for thread in threading.enumerate() if "process_request" not in thread.name}
