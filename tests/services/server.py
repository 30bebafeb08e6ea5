"""A loopback service that speaks the wire shape of every family, strictly, and breaks on purpose.

By hand: ``python -m tests.services.server --family cohere --faults 0.2``; it prints its URL, and
``GET /summary`` there tells what it counted.

It scores by `score`, so that whoever calls it can tell what the right answer is. Billed is every
answer of status 200 whose bill can be read, so also one with results too few, twice or not finite;
not billed is one that is no JSON, like every error. A request counts for the rate when it arrives.
"""

import argparse
import hashlib
import json
import math
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from rerank_batch.services.usage import Usage
from tests.services.llm_server import PretendLlm

HOST = "127.0.0.1"
KEY = "test0key0for0a0loopback0service"
FAULTS = (
    "too_many",  # 429 with Retry-After
    "failed",  # 500
    "unavailable",  # 503 with Retry-After
    "slow",
    "reset",
    "garbage",  # 200, and the body is half of the JSON
    "short",  # 200, and a result is missing
    "twice",  # 200, and one index stands in the place of another
    "nan",
)
SPOILT = ("short", "twice", "nan")


def score(query: str, document: str) -> float:
    """Words in common, and a fraction from a hash so that scores differ."""
    shared = len(set(query.split()) & set(document.split()))
    digest = hashlib.sha256(f"{query}\0{document}".encode()).digest()
    return shared + int.from_bytes(digest[:4], "big") / 2**32


def tokens_of(text: str) -> int:
    """Four characters each."""
    return math.ceil(len(text) / 4)


class Refused(Exception):
    """The service says no: a status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Route(Protocol):
    """What a path of a service does; `ROUTES` names them by family."""

    path: str

    def tokens(self, body: Mapping[str, Any]) -> int:
        """What a request counts for the tokens per minute."""

    def answer(self, body: Mapping[str, Any]) -> tuple[Any, Usage]:
        """The right answer and its bill.

        Raises:
            Refused: the request is not what the service takes.
        """

    def spoil(self, answer: Any, fault: str) -> Any:
        """The answer with one of `SPOILT` done to it."""

    def error(self, message: str) -> Any:
        """The body of an error."""


@dataclass(frozen=True)
class RerankRoute:
    """One family's path: which keys it takes and needs, and what it calls things."""

    path: str
    documents: str
    results: str | None
    score: str
    most: int
    bill: Callable[[str, list[str]], tuple[dict[str, Any], Usage]]
    error: Callable[[str], Any]
    takes: frozenset[str] = frozenset()
    needs_model: bool = True
    refuses_empty: bool = False

    def tokens(self, body: Mapping[str, Any]) -> int:
        """See `Route`."""
        query, documents = body.get("query", ""), body.get(self.documents, [])
        return tokens_of(query) * len(documents) + sum(map(tokens_of, documents))

    def answer(self, body: Mapping[str, Any]) -> tuple[Any, Usage]:
        """See `Route`."""
        known = {"query", self.documents, *self.takes, *(["model"] if self.needs_model else [])}
        if unknown := body.keys() - known:
            raise Refused(400, f"Argument {sorted(unknown)[0]} is not supported")
        for key in ("query", *(["model"] if self.needs_model else [])):
            if not isinstance(body.get(key), str) or not body[key]:
                raise Refused(422, f"{key} is required")
        documents = body.get(self.documents)
        if not isinstance(documents, list) or not all(isinstance(d, str) for d in documents):
            raise Refused(422, f"{self.documents} must be a list of strings")
        if not 0 < len(documents) <= self.most:
            raise Refused(422, f"{self.documents} must be between 1 and {self.most}")
        if self.refuses_empty and "" in documents:
            raise Refused(400, "Input cannot contain empty strings")
        scores = [score(body["query"], document) for document in documents]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        results = [{"index": i, self.score: scores[i]} for i in order]
        around, used = self.bill(body["query"], documents)
        return (results if self.results is None else {**around, self.results: results}), used

    def spoil(self, answer: Any, fault: str) -> Any:
        """See `Route`."""
        results = answer if self.results is None else answer[self.results]
        if fault == "nan":
            results[-1][self.score] = math.nan
        elif fault == "short" or len(results) == 1:
            results.pop()
        else:
            results[-1]["index"] = results[0]["index"]
        return answer


def _search_units(query: str, documents: list[str]) -> tuple[dict[str, Any], Usage]:
    units = math.ceil(len(documents) / 100)
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": float(units)}}
    return {"id": "0", "meta": meta}, Usage(requests=1, search_units=units)


def _tokens(query: str, documents: list[str]) -> tuple[dict[str, Any], Usage]:
    tokens = tokens_of(query) * len(documents) + sum(map(tokens_of, documents))
    around = {"object": "list", "model": "m", "usage": {"total_tokens": tokens}}
    return around, Usage(requests=1, tokens=tokens)


def _nothing(query: str, documents: list[str]) -> tuple[dict[str, Any], Usage]:
    return {}, Usage(requests=1)


ROUTES: dict[str, Route] = {
    "cohere": RerankRoute(
        "/v2/rerank", "documents", "results", "relevance_score", 1000, _search_units,
        lambda message: {"id": "0", "message": message},
        frozenset({"top_n", "max_tokens_per_doc", "priority"}),
    ),
    "voyage": RerankRoute(
        "/v1/rerank", "documents", "data", "relevance_score", 1000, _tokens,
        lambda message: {"detail": message},
        frozenset({"top_k", "return_documents", "truncation"}), refuses_empty=True,
    ),
    "jina": RerankRoute(
        "/v1/rerank", "documents", "results", "relevance_score", 1000, _tokens,
        lambda message: {"detail": message},
        frozenset({"top_n", "return_documents"}), refuses_empty=True,
    ),
    "tei": RerankRoute(
        "/rerank", "texts", None, "score", 32, _nothing,
        lambda message: {"error": message, "error_type": "Validation"},
        frozenset({"truncate", "raw_scores", "return_text"}), needs_model=False,
    ),
    "vllm": RerankRoute(
        "/v1/rerank", "documents", "results", "relevance_score", 1000, _tokens,
        lambda message: {"error": {"message": message, "type": "BadRequestError", "code": 400}},
        frozenset({"top_n", "truncate_prompt_tokens", "use_activation"}),
    ),
    "infinity": RerankRoute(
        "/rerank", "documents", "results", "relevance_score", 2048, _tokens,
        lambda message: {"error": {"message": message, "type": "", "code": 422}},
        frozenset({"top_n", "return_documents", "raw_scores"}),
    ),
    "llm": PretendLlm(),
}  # fmt: skip


@dataclass(frozen=True)
class Canned:
    """An answer that a test made up."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request as it was answered; status 0: the connection was broken."""

    arrived: float
    path: str
    status: int
    fault: str | None
    host: str
    body: Any


@dataclass(frozen=True)
class Rate:
    """What a key may do in ``minute`` seconds, in any that there are."""

    requests: int | None = None
    tokens: int | None = None
    minute: float = 60.0


class ServiceServer:
    """The service of some families, in threads of this process.

    ``faults`` maps names in FAULTS to their share of the requests, drawn from ``seed``; it and
    ``canned``, which may answer instead, are read anew for each request. ``violations`` tells each
    time the rate was too high, ``calls`` is the log, ``billed`` the sum of all bills.
    """

    def __init__(
        self,
        *families: str,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        rate: Rate = Rate(),
        key: str | None = KEY,
    ) -> None:
        self.routes = {ROUTES[family].path: ROUTES[family] for family in families}
        self.faults = dict(faults or {})
        self.rate = rate
        self.key = key
        self.retry_after = "0.05"
        self.slow_seconds = 0.3
        self.canned: Callable[[Any], Canned | None] = lambda body: None
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.billed = Usage()
        self._random = random.Random(seed)
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._server = _Server((HOST, 0), _Handler)
        self._server.service = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="service-server"
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def __enter__(self) -> "ServiceServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """From now on; the URL is still the one of plain http."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def summary(self) -> dict[str, Any]:
        """What was counted."""
        with self._lock:
            faults = Counter(call.fault for call in self.calls if call.fault)
            return {
                "requests": len(self.calls),
                "billed": asdict(self.billed),
                "faults": dict(faults),
                "violations": list(self.violations),
            }

    def decide(
        self, path: str, headers: Mapping[str, str], raw: bytes
    ) -> tuple[Canned, str | None]:
        """The answer to a request, written into the log, and the fault it is given with."""
        arrived = time.monotonic()
        body = json.loads(raw)
        route = self.routes.get(path)
        with self._lock:
            fault = self._draw()
            reply, used = self._reply(route, headers, body, arrived, fault)
            self.billed += used
            status = 0 if fault == "reset" else reply.status
            self.calls.append(Call(arrived, path, status, fault, headers["Host"], body))
        return reply, fault

    def _draw(self) -> str | None:
        point = self._random.random()
        for fault, share in self.faults.items():
            point -= share
            if point < 0:
                return fault
        return None

    def _reply(
        self,
        route: Route | None,
        headers: Mapping[str, str],
        body: Any,
        arrived: float,
        fault: str | None,
    ) -> tuple[Canned, Usage]:
        if route is None:
            return Canned(404, b'{"message": "no such path"}'), Usage()
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            return _error(route, 401, "invalid api token"), Usage()
        wait = {"Retry-After": self.retry_after}
        if problem := self._too_fast(route.tokens(body), arrived):
            self.violations.append(problem)
            return _error(route, 429, problem, wait), Usage()
        if canned := self.canned(body):
            return canned, Usage()
        if fault in ("too_many", "failed", "unavailable"):
            status = {"too_many": 429, "failed": 500, "unavailable": 503}[fault]
            return _error(route, status, fault, {} if status == 500 else wait), Usage()
        if fault == "reset":
            return Canned(), Usage()
        try:
            answer, used = route.answer(body)
        except Refused as refused:
            return _error(route, refused.status, str(refused)), Usage()
        if fault == "garbage":
            whole = json.dumps(answer).encode()
            return Canned(200, whole[: len(whole) // 2]), Usage()
        spoilt = route.spoil(answer, fault) if fault in SPOILT else answer
        return Canned(200, json.dumps(spoilt).encode()), used

    def _too_fast(self, tokens: int, now: float) -> str:
        while self._recent and now - self._recent[0][0] > self.rate.minute:
            self._recent.popleft()
        self._recent.append((now, tokens))
        requests, total = len(self._recent), sum(size for _, size in self._recent)
        if self.rate.requests is not None and requests > self.rate.requests:
            return f"{requests} requests in {self.rate.minute} s"
        if self.rate.tokens is not None and total > self.rate.tokens:
            return f"{total} tokens in {self.rate.minute} s"
        return ""


def _error(
    route: Route, status: int, message: str, headers: Mapping[str, str] | None = None
) -> Canned:
    return Canned(status, json.dumps(route.error(message)).encode(), headers or {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    service: ServiceServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        reply, fault = self.server.service.decide(self.path, self.headers, raw)
        if fault == "slow":
            time.sleep(self.server.service.slow_seconds)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self._send(reply)

    def do_GET(self) -> None:
        self._send(Canned(200, json.dumps(self.server.service.summary()).encode()))

    def _send(self, reply: Canned) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *arguments: object) -> None:
        """Standard error stays empty."""


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", action="append", required=True, choices=sorted(ROUTES))
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that go wrong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, help="requests a minute")
    parser.add_argument("--tokens", type=int, help="tokens a minute")
    parser.add_argument("--minute", type=float, default=60.0, help="how long a minute is, in s")
    parser.add_argument("--key", default=KEY)
    given = parser.parse_args()
    faults = dict.fromkeys(FAULTS, given.faults / len(FAULTS))
    rate = Rate(given.requests, given.tokens, given.minute)
    with ServiceServer(
        *given.family, faults=faults, seed=given.seed, rate=rate, key=given.key
    ) as server:
        print(server.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(json.dumps(server.summary()), flush=True)


if __name__ == "__main__":
    main()
