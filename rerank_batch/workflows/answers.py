"""The answer check of an evaluation: texts from the index, questions and references, grades out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from typing import Any

import pyarrow as pa

from rerank_batch.answers import (
    ANSWER_GRADE,
    HIGHEST,
    AnswerGrades,
    AnswerTask,
    AnswerUse,
    References,
    check_answers,
    outcome_table,
    read_references,
)
from rerank_batch.config import AnswerCheckConfig, Config, PriceConfig
from rerank_batch.data.text_store import TextStore
from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.evaluation.outcomes.study import AnswerCase
from rerank_batch.index.configured import open_generation
from rerank_batch.index.fingerprint import check_made_of
from rerank_batch.index.open import verify_files
from rerank_batch.llm.checks import check_llm
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers.paid import read_journal
from rerank_batch.runs import Run
from rerank_batch.schema import JsonObject

MAX_CASES = 10

Numbers = dict[str, int]


@dataclass(frozen=True)
class Ranked:
    """A query, every id it stands for, and the best documents of each system, the best first."""

    query_id: str
    query_ids: tuple[str, ...]
    text: str
    rankings: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class AnswerCheck:
    """``table`` are the grades, of `outcomes.OUTCOMES`; ``summary`` is JSON values without texts.

    ``cases`` are the queries whose grades differ most between systems, those that differ.
    """

    table: pa.Table
    summary: JsonObject
    cases: tuple[AnswerCase, ...]


def prepare_answers(config: Config) -> References | None:
    """What the check needs, read and checked before anything runs; None where none is asked for.

    Raises:
        ModelError: a model that is none of the family llm.
        ConfigError: a missing key or price.
        InputError: reference answers that cannot be read.
    """
    check = config.answer_check
    if check is None:
        return None
    check_llm(config, {"answer_check.model": check.model, "answer_check.judge": check.judge})
    return read_references(check)


def most_calls(references: References, query_ids: Iterable[Sequence[str]], systems: int) -> int:
    """Calls of a check that knows no reply yet, at most: an answer and a grade for every list.

    ``query_ids`` are all ids of each query. Lists that are alike make it fewer, replies that are
    asked for twice more.
    """
    return 2 * systems * sum(bool(references.of(list(ids))) for ids in query_ids)


def ranked_queries(
    blocks: Iterable[Sequence[JudgedQuery]], systems: Sequence[str], top: int
) -> Iterator[Ranked]:
    """The best of the lists of the ``systems``, of every judged query of a run."""
    for block in blocks:
        for query in block:
            rankings = {system: query.lists[system].doc_ids[:top] for system in systems}
            yield Ranked(query.query_id, tuple(query.query_ids), query.text, rankings)


def grade_answers(
    config: Config,
    run: Run,
    references: References,
    queries: Sequence[Ranked],
    reporter: Reporter,
) -> AnswerCheck:
    """Answer every query that has a reference from the top of every system's list, and grade it.

    Raises:
        IndexMismatch: the index holds other documents than those that the run ranked.
        SpendCapReached: what the run paid for already counts; go on by evaluating it again.
        ServiceError: what was paid for is kept.
    """
    check = config.answer_check
    if check is None:
        raise ConfigError("answer_check is not configured")
    tasks, counts = answer_tasks(_texts(config, run), check, references, queries)
    paid = sum(entry.cost for _, entry in read_journal(run.root, f"runs/{run.run_id}/"))
    use = AnswerUse(
        root=run.root,
        run_id=run.run_id,
        price=config.cost.price(check.model),
        judge_price=config.cost.price(check.judge or check.model),
        cap=config.cost.cap,
        spent=paid,
    )
    grades = check_answers(tasks, check, use, reporter.progress)
    summary = _summary(config, check, grades, {**counts, "bad_references": references.dropped})
    return AnswerCheck(outcome_table(tasks, grades), summary, _cases(tasks, grades))


def answer_tasks(
    texts: TextStore, check: AnswerCheckConfig, references: References, queries: Sequence[Ranked]
) -> tuple[list[AnswerTask], Numbers]:
    """What is to be asked, and how much cannot be.

    Counted are ``queries`` that are asked about, those ``without_reference``, ``without_texts``
    (lists of which no document is in the index), and of documents ``missing_documents``, which are
    not there, and ``cut_documents``, which are longer than the model gets to read.
    """
    wanted = {doc for each in queries for ids in each.rankings.values() for doc in ids[: check.top]}
    ids = sorted(wanted)
    numbers = texts.numbers(ids)
    there = numbers >= 0
    found = [each for each, known in zip(ids, there, strict=True) if known]
    content = dict(zip(found, texts.contents(numbers[there]), strict=True))
    tasks: list[AnswerTask] = []
    with_reference = without_reference = without_texts = 0
    for query in queries:
        right = references.of(query.query_ids)
        if not right:
            without_reference += 1
            continue
        with_reference += 1
        for system, listed in query.rankings.items():
            documents = tuple(content[doc] for doc in listed[: check.top] if doc in content)
            if listed and not documents:
                without_texts += 1
            else:
                tasks.append(AnswerTask(query.query_id, query.text, system, documents, right))
    counts = {
        "queries": with_reference,
        "without_reference": without_reference,
        "without_texts": without_texts,
        "missing_documents": len(ids) - len(found),
        "cut_documents": sum(len(text) > check.max_chars for text in content.values()),
    }
    return tasks, counts


def answer_remarks(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """How answers were made and graded, and what is missing, in sentences."""
    same = summary["model"] == summary["judge"]
    remarks = [
        f"{summary['outcome']}: {summary['model']} answered {summary['queries']:,} queries from "
        f"the first {summary['top']} documents of each list ({summary['answer_prompt']}); "
        f"{'the same model' if same else summary['judge']} graded from 0 to {summary['highest']} "
        f"against reference answers ({summary['judge_prompt']})."
    ]
    missing = [f"{summary[key]:,} {words}" for key, words in _MISSING.items() if summary.get(key)]
    if missing:
        remarks.append(f"Not in these grades: {', '.join(missing)}.")
    if summary["cut_documents"]:
        remarks.append(
            f"{summary['cut_documents']:,} documents were longer than {summary['max_chars']:,} "
            "characters and read in part."
        )
    return tuple(remarks)


_MISSING = {
    "without_reference": "queries without a reference answer",
    "without_texts": "lists without a document that the index has",
    "missing_documents": "documents that the index does not have",
    "unanswered": "lists to which the model wrote no answer, asked twice",
    "ungraded": "answers whose grade could not be read, asked twice",
    "bad_references": "rows of the reference without an id or an answer",
}


def _summary(
    config: Config, check: AnswerCheckConfig, grades: AnswerGrades, counts: Numbers
) -> JsonObject:
    answering, judging = grades.answering, grades.judging
    prices = (config.cost.price(each.model) for each in (answering, judging))
    return {
        "outcome": ANSWER_GRADE,
        "highest": HIGHEST,
        "model": answering.model,
        "judge": judging.model,
        "answer_prompt": answering.prompt,
        "judge_prompt": judging.prompt,
        "top": check.top,
        "max_chars": check.max_chars,
        "lists": len(grades.grades),
        "graded": sum(grade is not None for grade in grades.grades),
        "unanswered": grades.unanswered,
        "ungraded": grades.ungraded,
        **counts,
        "prompts": answering.prompts + judging.prompts,
        "known": answering.known + judging.known,
        "used": asdict(answering.used + judging.used),
        "cost": round(answering.cost + judging.cost, 6),
        "priced": any(price not in (None, PriceConfig()) for price in prices),
        "currency": config.cost.currency,
    }


def _cases(tasks: Sequence[AnswerTask], grades: AnswerGrades) -> tuple[AnswerCase, ...]:
    """The queries whose grades differ most, the smaller id first of equals."""
    answers: dict[str, list[tuple[str, int | None, str | None]]] = {}
    first: dict[str, AnswerTask] = {}
    for task, grade, answer in zip(tasks, grades.grades, grades.answers, strict=True):
        answers.setdefault(task.query_id, []).append((task.system, grade, answer))
        first.setdefault(task.query_id, task)
    cases = (
        AnswerCase(query, first[query].query, first[query].references, tuple(answers[query]))
        for query in sorted(answers)
    )
    return tuple(nlargest(MAX_CASES, (case for case in cases if case.spread), _by_spread))


def _by_spread(case: AnswerCase) -> int:
    return case.spread


def _texts(config: Config, run: Run) -> TextStore:
    """The texts of the index, if it is of the corpus that the run ranked.

    Systems that are compared may have an index each: all of them are of that one corpus.
    """
    computed = [each for each in config.evaluation.systems.values() if each.is_computed]
    system = config.computing(computed[0]) if computed else config
    index = open_generation(system, run.spec.generations)
    made_of = run.spec.index_made_of
    ranked = made_of[0] if isinstance(made_of, list) else made_of
    check_made_of(index.root, index.manifest, {"corpus": ranked["corpus"]})
    verify_files(index)
    return index.texts()
