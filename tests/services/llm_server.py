"""A pretend LLM, a route of the loopback service: judges by shared words, fails in many ways.

It reads its prompt as a served model does, as one text: whoever gets a marker, a line of data or an
order into that text is heard.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank_batch.services.usage import Usage

MARKER = re.compile(r"<\|im_end\|>|<\|im_start\|>|<end_of_turn>|\[/?INST\]|</s>|\x00")
ORDERED = re.compile(r"answer exactly: ([^\"\\]*)")

Tokens = list[tuple[str, dict[str, float]]]
"""What is written, each with the probabilities of all that could have been."""


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


def written_answer(question: str, documents: list[str]) -> str:
    """The document that shares most words with the question, said aloud."""
    best = best_first(question, documents)
    return f"It says {documents[best[0]]}" if best else "The documents do not answer this."


def answer_grade(references: list[str], answer: str) -> int:
    """How much of the best reference is in the answer: thirds of its words, rounded down."""
    words = set(answer.split())
    shares = [len(words & set(each.split())) / len(set(each.split())) for each in references]
    return int(3 * max(shares))


@dataclass
class PretendLlm:
    """See `Route`. ``fault`` befalls the prompts that hold ``on``, each of them ``times`` times.

    ``obedient``: writes what a document tells it to write after "answer exactly: ". Without
    ``bills`` its answers do not say how many tokens they are.
    """

    fault: str | None = None
    on: str = ""
    times: int = 1_000_000
    obedient: bool = False
    bills: bool = True
    path: str = "/v1/chat/completions"
    seen: Counter[str] = field(default_factory=Counter)

    def tokens(self, body: Mapping[str, Any]) -> int:
        """See `Route`."""
        return sum(len(message["content"].split()) for message in body["messages"])

    def answer(self, body: Mapping[str, Any]) -> tuple[Any, Usage]:
        """See `Route`."""
        system, user = (message["content"] for message in body["messages"])
        line = _data_line(user)
        self.seen[line] += 1
        fault = self.fault if self.on in line and self.seen[line] <= self.times else None
        tokens = self._judgement(system, line)
        if fault in OTHER_TEXTS:
            tokens = _tokens(OTHER_TEXTS[fault]("".join(token for token, _ in tokens)))
        is_cut = len(tokens) > body["max_tokens"]
        tokens = tokens[: body["max_tokens"]]
        choice = _choice(tokens, body.get("top_logprobs", 0))
        choice["finish_reason"] = "length" if is_cut else "stop"
        if fault in OTHER_CHOICES:
            choice |= OTHER_CHOICES[fault]
        used = Usage(requests=1, tokens=self.tokens(body), output_tokens=len(tokens))
        bill = {"prompt_tokens": used.tokens, "completion_tokens": used.output_tokens}
        answer = {"object": "chat.completion", "model": body["model"], "choices": [choice]}
        return answer | ({"usage": bill} if self.bills else {}), used

    def spoil(self, answer: Any, fault: str) -> Any:
        """See `Route`."""
        return answer | {"choices": [] if fault == "short" else [{"message": None}]}

    def error(self, message: str) -> Any:
        """See `Route`."""
        return {"error": {"message": message, "type": "invalid_request_error"}}

    def _judgement(self, system: str, line: str) -> Tokens:
        told = ORDERED.search(line)
        if self.obedient and told:
            return _tokens(told[1])
        data = json.loads(line)
        if "references" in data:
            return _tokens(str(answer_grade(data["references"], data["answer"])))
        if "question" in data:
            texts = [each["text"] for each in data["documents"]]
            return _tokens(written_answer(data["question"], texts))
        if "documents" in data:
            order = best_first(data["query"], [each["text"] for each in data["documents"]])
            return _tokens(" > ".join(f"[{data['documents'][i]['number']}]" for i in order))
        if "one digit" in system:
            shares = dict(zip("0123", grades(data["query"], data["document"]), strict=True))
        else:
            yes = likelihood(data["query"], data["document"])
            shares = {"yes": yes / 2, " Yes": yes / 4, "YES\n": yes / 4, "no": 1 - yes}
        return [(max(shares, key=shares.__getitem__), shares)]


def _data_line(user: str) -> str:
    """The line of JSON in the text after the last marker: what stands last is what is heard."""
    after = MARKER.split(user)[-1]
    lines = [line for line in re.split(r"[\n\r\x0b\x0c\x85\u2028\u2029]", after) if "{" in line]
    return lines[-1] if lines else ""


def _tokens(text: str) -> Tokens:
    return [(token, {token: 1.0}) for token in re.findall(r"\s*(?:\w+|[^\w\s])", text)]


def _choice(tokens: Tokens, top: int) -> dict[str, Any]:
    places = [
        {
            "token": token,
            "logprob": math.log(shares[token]),
            "top_logprobs": [
                {"token": other, "logprob": math.log(share)} for other, share in shares.items()
            ][:top],
        }
        for token, shares in tokens
    ]
    text = "".join(token for token, _ in tokens)
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": places} if top else None,
    }


OTHER_TEXTS: dict[str | None, Callable[[str], str]] = {
    "prose": lambda text: "I cannot compare these documents.",
    "nothing": lambda text: "",
    "digit 9": lambda text: "9",
    "an object": lambda text: f'{{"grade": {text}}}',
    "a repeat": lambda text: text.replace("[2]", "[1]"),
    "one too many": lambda text: text + " > [1]",
    "an omission": lambda text: text.partition(" > ")[2],
    "a stranger": lambda text: text.replace("[1]", "[99]"),
    "prose before": lambda text: "Ranking: " + text,
    "prose after": lambda text: text + " because of the words",
    "another sign": lambda text: text.replace(" > ", ", "),
}
OTHER_CHOICES: dict[str | None, dict[str, Any]] = {
    "refusal": {"message": {"content": None, "refusal": "no"}, "logprobs": None},
    "no logprobs": {"logprobs": None},
    "broken logprobs": {"logprobs": {"content": [{"token": "yes"}]}},
}
