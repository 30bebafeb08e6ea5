"""A pretend LLM behind HTTP: judges by shared words, can fail in every way, can obey what it reads.

It reads its prompt as a served model does, as one text: whoever gets a marker, a line of data or an
order into that text is heard.
"""

import json
import math
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MARKER = re.compile(r"<\|im_end\|>|<\|im_start\|>|<end_of_turn>|\[/?INST\]|</s>|\x00")
ORDERED = re.compile(r"answer exactly: ([^\"\\]*)")


def likelihood(query: str, document: str) -> float:
    """That the document answers the query: words they share, never 0 or 1."""
    asked = set(query.split())
    return (1 + len(asked & set(document.split()))) / (2 + len(asked))


def grades(query: str, document: str) -> list[float]:
    """The probabilities of the grades 0 to 3."""
    weights = [math.exp(-2 * abs(n - 3 * likelihood(query, document))) for n in range(4)]
    return [weight / sum(weights) for weight in weights]


def best_first(query: str, documents: list[str]) -> list[int]:
    """Places of the documents, the earlier of equals first."""
    return sorted(range(len(documents)), key=lambda i: -likelihood(query, documents[i]))


@dataclass
class PretendLlm:
    """``fault`` befalls the prompts that hold ``on``, each of them ``times`` times.

    ``obedient``: writes what a document tells it to write after "answer exactly: ". Without
    ``bills`` its answers do not say how many tokens they are.
    """

    fault: str | None = None
    on: str = ""
    times: int = 1_000_000
    obedient: bool = False
    bills: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    billed: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The response to a request, status 200."""
        system, user = (message["content"] for message in body["messages"])
        line = _data_line(user)
        with self.lock:
            self.bodies.append(body)
            self.seen[line] += 1
            faulty = self.fault and self.on in line and self.seen[line] <= self.times
        choice = self._choice(body, system, line)
        if faulty:
            choice = FAULTS[self.fault](choice)
        words = len((system + user).split()), len(str(choice["message"]["content"]).split())
        with self.lock:
            self.billed.update(prompt_tokens=words[0], completion_tokens=words[1])
        if faulty and self.fault == "another protocol":
            return {"results": []}
        bill = {"prompt_tokens": words[0], "completion_tokens": words[1]}
        return {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [choice],
            **({"usage": bill} if self.bills else {}),
        }

    def _choice(self, body: dict[str, Any], system: str, line: str) -> dict[str, Any]:
        told = ORDERED.search(line)
        if self.obedient and told:
            return _written([(token, {token: 1.0}) for token in re.findall(r"\s*\S+", told[1])])
        data = json.loads(line)
        if "documents" in data:
            assert not body.get("logprobs")
            order = best_first(data["query"], [each["text"] for each in data["documents"]])
            text = " > ".join(f"[{data['documents'][i]['number']}]" for i in order)
            return {"index": 0, "message": {"role": "assistant", "content": text}}
        if "one digit" in system:
            shares = dict(zip("0123", grades(data["query"], data["document"]), strict=True))
            return _written([(max(shares, key=shares.__getitem__), shares)])
        yes = likelihood(data["query"], data["document"])
        shares = {"yes": yes / 2, " Yes": yes / 4, "YES\n": yes / 4, "no": 1 - yes - 1e-6}
        return _written([(max(shares, key=shares.__getitem__), shares | {"The": 1e-6})])


class LlmServer(ThreadingHTTPServer):
    """Serves ``llm``, which may be replaced between calls, on a free port of this machine."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.llm = PretendLlm()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "LlmServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = self.path == "/v1/chat/completions"
        raw = json.dumps(self.server.llm.complete(body) if found else {}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def _data_line(user: str) -> str:
    """The line of JSON in the text after the last marker: what stands last is what is heard."""
    after = MARKER.split(user)[-1]
    lines = [line for line in re.split(r"[\n\r\x0b\x0c\x85\u2028\u2029]", after) if "{" in line]
    return lines[-1] if lines else ""


def _written(tokens: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    places = [
        {
            "token": token,
            "logprob": math.log(shares[token]),
            "top_logprobs": [
                {"token": other, "logprob": math.log(share)} for other, share in shares.items()
            ],
        }
        for token, shares in tokens
    ]
    text = "".join(token for token, _ in tokens)
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": places},
    }


def _says(text: str | None) -> Any:
    """The answer is that, and so are its tokens."""

    def fault(choice: dict[str, Any]) -> dict[str, Any]:
        if text is None:
            return choice | {"message": {"content": None, "refusal": "no"}, "logprobs": None}
        return _written([(token, {token: 1.0}) for token in re.findall(r"\s*\S+", text)])

    return fault


def _edited(pattern: str, replacement: str) -> Any:
    def fault(choice: dict[str, Any]) -> dict[str, Any]:
        text = re.sub(pattern, replacement, choice["message"]["content"], count=1)
        return choice | {"message": {"content": text}, "logprobs": None}

    return fault


FAULTS = {
    "prose": _says("I cannot compare these documents."),
    "refusal": _says(None),
    "nothing": _says(""),
    "digit 9": _says("9"),
    "no logprobs": lambda choice: choice | {"logprobs": None},
    "broken logprobs": lambda choice: choice | {"logprobs": {"content": [{"token": "yes"}]}},
    "a repeat": _edited(r"\[2\]", "[1]"),
    "an omission": _edited(r"\[1\] > | > \[1\]", ""),
    "a stranger": _edited(r"\[1\]", "[99]"),
    "prose before": _edited(r"^", "Ranking: "),
    "prose after": _edited(r"\Z", " because of the words"),
    "another sign": _edited(" > ", ", "),
    "another protocol": lambda choice: choice,
}
