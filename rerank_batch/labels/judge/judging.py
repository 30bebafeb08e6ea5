"""The judge: a language model grades pairs of query and document by a rubric, some of them twice.

Pairs are asked about in portions, so that no more prompts are in memory than a portion has. What
gets no grade that can be read is left out, counted by its reason. Knows no run and no judgements of
others.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from rerank_batch.config import LabelJudgeConfig, PriceConfig
from rerank_batch.data.qrels import Qrels
from rerank_batch.data.text_store import TextStore
from rerank_batch.labels.judge.pairs import ToJudge, wants_second_opinion
from rerank_batch.labels.judge.prompts import Opinion, Rubric, judge_request, version
from rerank_batch.llm.client import (
    CallEstimate,
    Completions,
    Endpoint,
    LlmClient,
    LlmModel,
    LlmRequest,
    progress_at_cap,
)
from rerank_batch.llm.grades import read_grade
from rerank_batch.llm.journal import Journal
from rerank_batch.services.address import address_of
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage
from rerank_batch.storage import Root

NOT_IN_INDEX = "not_in_index"
"""Why a pair has no grade, beside the reasons of `llm`: there is no text to read."""

_PORTION = 2_048

Watch = Callable[[int, Callable[[], int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class JudgeUse:
    """Where replies are kept and what may be spent on them.

    ``name`` is what they are paid for under: ``cap`` bounds what all attempts of that name spend.
    """

    root: Root
    name: str
    price: PriceConfig | None = None
    cap: float | None = None


@dataclass
class JudgedPairs:
    """What came of it: ``grades`` by query and document, without those of the ``ungraded``.

    ``ungraded`` counts pairs by reason; ``twice`` has the first and the second grade of every pair
    with both, and ``no_second`` counts the others that were to be judged twice. ``cut`` is how many
    pairs have a text longer than the judge gets to read. Of the ``prompts`` that differ ``known``
    were in the journal; ``used`` and ``cost`` are of all attempts.
    """

    grades: Qrels = field(default_factory=dict)
    pairs: int = 0
    ungraded: Counter[str] = field(default_factory=Counter)
    twice: list[tuple[int, int]] = field(default_factory=list)
    no_second: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    prompts: int = 0
    known: int = 0
    used: Usage = field(default_factory=Usage)
    cost: float = 0.0

    def count(self, completions: Completions[int]) -> None:
        """Add up what was sent."""
        self.prompts += completions.distinct
        self.known += completions.known


@dataclass(frozen=True)
class _Pair:
    """A pair and its texts as they are sent; without ``document`` it is not in the index."""

    query_id: str
    doc_id: str
    query: str
    document: str | None


class Judge:
    """Asks one model about pairs whose documents are in ``texts``.

    Raises:
        ConfigError: the environment lacks the endpoint's key.
        StorageError: what was kept is damaged.
    """

    def __init__(
        self,
        settings: LabelJudgeConfig,
        rubric: Rubric,
        texts: TextStore,
        use: JudgeUse,
        seed: int = 0,
    ) -> None:
        self._settings, self._rubric, self._texts, self._seed = settings, rubric, texts, seed
        self._journal = Journal(use.root, use.name)
        self._budget = Budget(use.price, use.cap, self._journal.spent)
        self._price = use.price or PriceConfig()
        service = settings.service
        pace = Pace(service.requests_per_minute, service.tokens_per_minute)
        self._endpoint = Endpoint(address_of("llm"), pace, service)
        self._clients: dict[Opinion, LlmClient[int]] = {
            "first": self._client("first"),
            "second": self._client("second"),
        }

    def estimate(self, queries: Sequence[ToJudge]) -> CallEstimate:
        """What judging these would take; nothing is sent.

        Which first grades cannot be read is not known ahead: every pair that is drawn counts with
        its second opinion.
        """
        estimate = CallEstimate()
        for pairs, _ in self._portions(queries):
            there = [pair for pair in pairs if pair.document is not None]
            drawn = [pair for pair in there if self._is_drawn(pair)]
            estimate += self._clients["first"].estimate(
                [self._prompt("first", pair) for pair in there]
            )
            estimate += self._clients["second"].estimate(
                [self._prompt("second", pair) for pair in drawn]
            )
        return estimate

    def judge(self, queries: Sequence[ToJudge], watch: Watch | None = None) -> JudgedPairs:
        """Grade every pair, and those that are drawn a second time.

        Raises:
            SpendCapReached, ServiceError: what was paid for is kept and used the next time.
        """
        # Again before each portion; here, so that an address that is refused is told early.
        self._endpoint.address.resolve()
        judged = JudgedPairs()
        total = self._total(queries)
        before = 0

        def done() -> int:
            # Equal prompts are sent once: of a portion that is over all count.
            return before + sum(client.done for client in self._clients.values())

        watching = (watch or _unwatched)(total, done)
        how = "the same make-labels"
        with watching, progress_at_cap(lambda: (done(), total), "judgements", how):
            for pairs, cut in self._portions(queries):
                judged.cut += cut
                before += self._judge(pairs, judged)
                for client in self._clients.values():
                    client.done = 0
        judged.used, judged.cost = self._journal.used, self._journal.spent
        return judged

    def _judge(self, pairs: Sequence[_Pair], judged: JudgedPairs) -> int:
        """Judge a portion; how many opinions were asked for."""
        first = self._complete("first", pairs, [pair.document is not None for pair in pairs])
        graded = zip(pairs, first.replies, strict=True)
        drawn = [grade is not None and self._is_drawn(pair) for pair, grade in graded]
        second = self._complete("second", pairs, drawn)
        judged.pairs += len(pairs)
        for number, pair in enumerate(pairs):
            grade, other = first.replies[number], second.replies[number]
            if grade is None:
                judged.ungraded[first.reasons[number] or NOT_IN_INDEX] += 1
                continue
            judged.grades.setdefault(pair.query_id, {})[pair.doc_id] = grade
            if other is not None:
                judged.twice.append((grade, other))
            elif reason := second.reasons[number]:
                judged.no_second[reason] += 1
        judged.count(first)
        judged.count(second)
        return len(pairs) + sum(self._is_drawn(pair) for pair in pairs)

    def _complete(
        self, opinion: Opinion, pairs: Sequence[_Pair], wanted: Sequence[bool]
    ) -> Completions[int]:
        prompts = [
            self._prompt(opinion, pair) if is_wanted else None
            for pair, is_wanted in zip(pairs, wanted, strict=True)
        ]
        return self._clients[opinion].complete(prompts, _unwatched)

    def _prompt(self, opinion: Opinion, pair: _Pair) -> LlmRequest:
        return judge_request(opinion, self._rubric, pair.query, pair.document or "")

    def _portions(self, queries: Sequence[ToJudge]) -> Iterator[tuple[list[_Pair], int]]:
        """The pairs with their texts, some thousand at a time, and how many texts were cut."""
        waiting: list[ToJudge] = []
        size = 0
        for query in queries:
            waiting.append(query)
            size += len(query.doc_ids)
            if size >= _PORTION:
                yield self._read(waiting)
                waiting, size = [], 0
        if waiting:
            yield self._read(waiting)

    def _read(self, queries: Sequence[ToJudge]) -> tuple[list[_Pair], int]:
        most = self._settings.max_chars
        ids = sorted({doc_id for query in queries for doc_id in query.doc_ids})
        numbers = self._texts.numbers(ids)
        there = numbers >= 0
        known = [doc_id for doc_id, is_there in zip(ids, there, strict=True) if is_there]
        contents = dict(zip(known, self._texts.contents(numbers[there]), strict=True))
        pairs, cut = [], 0
        for query in queries:
            for doc_id in query.doc_ids:
                text = contents.get(doc_id)
                cut += max(len(query.text), len(text or "")) > most
                sent = None if text is None else text[:most]
                pairs.append(_Pair(query.query_id, doc_id, query.text[:most], sent))
        return pairs, cut

    def _total(self, queries: Sequence[ToJudge]) -> int:
        return sum(
            1 + wants_second_opinion(self._seed, query.query_id, doc_id, self._settings.double)
            for query in queries
            for doc_id in query.doc_ids
        )

    def _is_drawn(self, pair: _Pair) -> bool:
        share = self._settings.double
        return wants_second_opinion(self._seed, pair.query_id, pair.doc_id, share)

    def _client(self, opinion: Opinion) -> LlmClient[int]:
        settings = self._settings
        name = settings.model.partition(":")[2]
        model = LlmModel(name, version(opinion), settings.max_tokens, 0.0, self._price, whole=True)
        return LlmClient(self._endpoint, model, self._journal, self._budget, read_grade)


def _unwatched(total: int, done: Callable[[], int]) -> AbstractContextManager[None]:
    return nullcontext()
