"""The answer check: an answer from the top of each system's list, and its grade.

First all answers are written, then all are graded. The judge sees the question, the reference
answers and the answer: neither which system it is of nor the documents. What cannot be answered or
graded has no grade and is counted; no grade is ever guessed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pyarrow as pa

from rerank_batch.answers.prompts import (
    Name,
    answer_words,
    judge_words,
    load,
    version,
)
from rerank_batch.config import AnswerCheckConfig, PriceConfig
from rerank_batch.data.outcomes import OUTCOMES
from rerank_batch.llm.client import (
    Completions,
    Endpoint,
    LlmClient,
    LlmModel,
    LlmRequest,
    progress_at_cap,
)
from rerank_batch.llm.grades import read_grade
from rerank_batch.llm.journal import Journal
from rerank_batch.llm.replies import NotInForm
from rerank_batch.services.address import address_of
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage
from rerank_batch.storage import Root

T = TypeVar("T")

ANSWER_GRADE = "answer_grade"
"""What the grades are called as an outcome."""

MOST_CHARS = 10_000
"""Of an answer, whatever a service writes, and of a reference."""

_GRADE_TOKENS = 16  # more than a grade needs, so that prose which begins with a digit shows

Progress = Callable[[str, int, Callable[[], int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class AnswerTask:
    """What is to be answered: a question, what a system put at the top for it, and what is right.

    ``documents`` are texts, the best first; none where the system found nothing.
    """

    query_id: str
    query: str
    system: str
    documents: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class AnswerUse:
    """Where replies are kept, and what may be spent on them.

    ``spent`` is what the run has cost so far, answers not counted; ``cap`` bounds all of it.
    """

    root: Root
    run_id: str
    price: PriceConfig | None = None
    judge_price: PriceConfig | None = None
    cap: float | None = None
    spent: float = 0.0


@dataclass(frozen=True)
class Called:
    """What a model was asked: ``prompts`` that differ, of which ``known`` were paid for earlier."""

    model: str
    prompt: str
    prompts: int
    known: int
    used: Usage
    cost: float


@dataclass(frozen=True)
class AnswerGrades:
    """``answers`` and ``grades`` in the order of the tasks; None where there is none.

    ``grades`` go from 0 to `HIGHEST`. ``unanswered`` tasks got no answer, ``ungraded`` ones an
    answer but no grade that could be read.
    """

    answers: tuple[str | None, ...]
    grades: tuple[int | None, ...]
    answering: Called
    judging: Called

    @property
    def unanswered(self) -> int:
        """Tasks without an answer."""
        return sum(answer is None for answer in self.answers)

    @property
    def ungraded(self) -> int:
        """Tasks with an answer that has no grade."""
        both = zip(self.answers, self.grades, strict=True)
        return sum(answer is not None and grade is None for answer, grade in both)


def check_answers(
    tasks: Sequence[AnswerTask],
    settings: AnswerCheckConfig,
    use: AnswerUse,
    progress: Progress | None = None,
) -> AnswerGrades:
    """Answer and grade every task; tasks that are alike but for their system are asked once.

    Raises:
        ConfigError: the environment lacks the endpoint's key.
        SpendCapReached, ServiceError: what was paid for is kept and used the next time.
        StorageError: what was kept is damaged.
    """
    service = settings.service
    address = address_of("llm")
    address.resolve()
    pace = Pace(service.requests_per_minute, service.tokens_per_minute)
    endpoint = Endpoint(address, pace, service)
    journal = Journal(use.root, use.run_id)
    watch = progress or _unwatched

    model, judge = (
        _model_name(name) for name in (settings.model, settings.judge or settings.model)
    )
    writer = LlmModel(
        model,
        version("answer"),
        settings.max_tokens,
        settings.temperature,
        use.price or PriceConfig(),
    )
    grader = LlmModel(
        judge, version("judge"), _GRADE_TOKENS, 0.0, use.judge_price or PriceConfig(), whole=True
    )

    most = settings.max_chars
    written = _complete(
        LlmClient(endpoint, writer, journal, _budget(use, writer.price, journal), _read_answer),
        [_answer_request(task, most) for task in tasks],
        "answers",
        watch,
        use,
    )
    # The same budget goes on: what the answers cost is in the journal by now.
    graded = _complete(
        LlmClient(endpoint, grader, journal, _budget(use, grader.price, journal), read_grade),
        [
            None if answer is None else _judge_request(task, answer, most)
            for task, answer in zip(tasks, written.replies, strict=True)
        ],
        "grades",
        watch,
        use,
    )
    return AnswerGrades(
        tuple(written.replies),
        tuple(graded.replies),
        _called(settings.model, writer, written),
        _called(settings.judge or settings.model, grader, graded),
    )


def outcome_table(tasks: Sequence[AnswerTask], grades: AnswerGrades) -> pa.Table:
    """The grades in the long form of outcomes; tasks without a grade have no row."""
    rows = [
        {
            "query_id": task.query_id,
            "system": task.system,
            "outcome": ANSWER_GRADE,
            "value": float(grade),
        }
        for task, grade in zip(tasks, grades.grades, strict=True)
        if grade is not None
    ]
    return pa.Table.from_pylist(rows, schema=OUTCOMES)


def _read_answer(text: str) -> str:
    if not text.strip():
        raise NotInForm
    return text.strip()[:MOST_CHARS]


def _answer_request(task: AnswerTask, most: int) -> LlmRequest:
    question, documents = task.query[:most], [text[:most] for text in task.documents]
    return _request("answer", answer_words(question, documents), [question, *documents])


def _judge_request(task: AnswerTask, answer: str, most: int) -> LlmRequest:
    question, references = task.query[:most], [text[:MOST_CHARS] for text in task.references]
    words = judge_words(question, references, answer)
    return _request("judge", words, [question, *references, answer])


def _request(name: Name, words: dict[str, str], private: Sequence[str]) -> LlmRequest:
    prompt = load(name)
    return LlmRequest(
        prompt.messages(words, again=False), prompt.messages(words, again=True), private
    )


def _complete(
    client: LlmClient[T],
    prompts: Sequence[LlmRequest | None],
    what: str,
    watch: Progress,
    use: AnswerUse,
) -> Completions[T]:
    how = f"evaluate CONFIG --run {use.run_id}"
    with progress_at_cap(lambda: (client.done, client.total), what, how):
        return client.complete(prompts, partial(watch, what))


def _budget(use: AnswerUse, price: PriceConfig, journal: Journal) -> Budget:
    return Budget(price, use.cap, use.spent + journal.spent)


def _called(name: str, model: LlmModel, completions: Completions[T]) -> Called:
    return Called(
        name,
        model.version,
        completions.distinct,
        completions.known,
        completions.used,
        completions.cost,
    )


def _model_name(name: str) -> str:
    return name.partition(":")[2]


def _unwatched(what: str, total: int, done: Callable[[], int]) -> AbstractContextManager[None]:
    return nullcontext()
