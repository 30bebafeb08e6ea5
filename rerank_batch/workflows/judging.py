"""The LLM as a source of truth for labels: checked first, then planned or asked, then told of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.config import Config, Ingredients, LabelJudgeConfig, PriceConfig, digest
from rerank_batch.data.qrels import Qrels, merge_grades, read_qrels
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.index.open import Index
from rerank_batch.labels.candidates import CandidateSource
from rerank_batch.labels.judge import (
    Judge,
    JudgedPairs,
    JudgeUse,
    Rubric,
    ToJudge,
    between_opinions,
    queries_to_judge,
    read_rubric,
    version,
    with_judgements,
)
from rerank_batch.labels.judge.agreement import in_words
from rerank_batch.llm.checks import check_llm
from rerank_batch.llm.client import CallEstimate
from rerank_batch.llm.grades import HIGHEST
from rerank_batch.remarks import counts_in_words
from rerank_batch.reporter import Reporter
from rerank_batch.schema import JsonObject
from rerank_batch.storage import open_root


@dataclass(frozen=True)
class Judging:
    """A judge that can start: what it works by, what it is compared with, what it is asked about.

    ``name`` is what its replies are paid for under: the same run, model and prompts have the same.
    """

    settings: LabelJudgeConfig
    rubric: Rubric
    qrels: Qrels | None
    queries: Sequence[ToJudge]
    judge: Judge
    name: str

    @property
    def made_of(self) -> Ingredients:
        """What grades are made of, beside the settings."""
        return {
            "rubric": self.rubric.sha256,
            "prompts": [version("first"), version("second")],
        }

    @property
    def pairs(self) -> int:
        """How many pairs are to be judged."""
        return sum(len(query.doc_ids) for query in self.queries)


@dataclass(frozen=True)
class JudgeTruth:
    """What the judge found: grades, words for the card, what they are made of, and the facts."""

    grades: Qrels
    told: str
    made_of: Ingredients
    facts: JsonObject


def prepare_judge(
    config: Config, source: CandidateSource, run: Mapping[str, str], index: Index
) -> Judging:
    """Read and check everything the judge needs; ``run`` says what the mined run holds.

    Raises:
        ConfigError: there is no judge, or a key or price is missing.
        ModelError: a model that is none of the family llm.
        InputError: the rubric or the judgements cannot be read, or the run found nothing.
    """
    settings = config.labels.judge
    if settings is None:
        raise ConfigError("labels.source is llm: give labels.judge.model")
    check_llm(config, {"labels.judge.model": settings.model})
    rubric = read_rubric(settings.rubric)
    judgements = config.labels.qrels or config.qrels
    qrels = read_qrels(judgements) if judgements else None
    queries = list(queries_to_judge(source, settings.depth))
    if not any(query.doc_ids for query in queries):
        raise InputError(f"labels: run {run['run_id']} found no document that could be judged")
    asks = settings.model_dump(mode="json", include={"model", "max_chars", "max_tokens"})
    name = f"judge-{digest([asks, rubric.sha256, run])[:16]}"
    use = JudgeUse(open_root(config.root), name, config.cost.price(settings.model), config.cost.cap)
    judge = Judge(settings, rubric, index.texts(), use, config.labels.seed)
    return Judging(settings, rubric, qrels, queries, judge, name)


def judge_run(config: Config, judging: Judging, reporter: Reporter) -> JudgeTruth:
    """Have every pair judged that is not yet.

    Raises:
        SpendCapReached, ServiceError: what was paid for is kept; the same command goes on.
        InputError: no pair got a grade.
    """
    settings = judging.settings
    reporter.note(
        f"{settings.model} judges {judging.pairs:,} pairs of {len(judging.queries):,} queries by "
        f"{judging.rubric.name}"
    )
    judged = judging.judge.judge(
        judging.queries, lambda total, done: reporter.progress("judgements", total, done)
    )
    if not judged.grades:
        raise InputError(
            f"labels: {settings.model} gave none of {judged.pairs:,} pairs a grade that can be "
            f"read ({counts_in_words(judged.ungraded)})"
        )
    told = (
        f"a language model, not people: {settings.model} by {judging.rubric.name}, the first "
        f"{settings.depth} documents of each query"
    )
    made_of = {**judging.made_of, "grades": digest(judged.grades)}
    return JudgeTruth(judged.grades, told, made_of, _facts(config, judging, judged))


def judge_plan(config: Config, judging: Judging) -> JsonObject:
    """What judging would take, JSON values only; nothing is asked."""
    settings = judging.settings
    estimate = judging.judge.estimate(judging.queries)
    price = config.cost.price(settings.model)
    return {
        "model": settings.model,
        "rubric": judging.rubric.name,
        "queries": len(judging.queries),
        "pairs": judging.pairs,
        **_of(estimate),
        "cost_at_most": None if price is None else round(estimate.most.cost(price), 6),
        "currency": config.cost.currency,
    }


def plan_line(plan: Mapping[str, Any]) -> str:
    """The plan in words."""
    cost = plan["cost_at_most"]
    most = plan["most"]
    money = (
        f"no price of {plan['model']} in cost.prices"
        if cost is None
        else f"at most {cost:,.4f} {plan['currency']}"
    )
    return (
        f"{plan['pairs']:,} pairs of {plan['queries']:,} queries by {plan['model']}: "
        f"{plan['prompts']:,} prompts with second opinions, {plan['known']:,} of them known; "
        f"{money} ({most['tokens']:,} tokens in and {most['output_tokens']:,} out, if every reply "
        "is asked for twice)"
    )


def judge_lines(facts: Mapping[str, Any]) -> dict[str, str]:
    """What came of it, for the terminal."""
    used = facts["used"]
    parts = [
        f"{facts['graded']:,} of {facts['pairs']:,} pairs graded by {facts['model']}",
        f"{facts['known']:,} of {facts['prompts']:,} prompts known",
        f"{used['requests']:,} requests, {used['tokens']:,} tokens in and "
        f"{used['output_tokens']:,} out",
    ]
    if facts["priced"]:
        parts.append(f"{facts['cost']:,.4f} {facts['currency']}")
    lines = {"judge": "; ".join(parts)}
    if facts["ungraded"]:
        lines["without a grade"] = counts_in_words(facts["ungraded"])
    if facts["second_opinion"] is not None:
        lines["second opinion"] = in_words(facts["second_opinion"])
    if facts["judgements"] is not None:
        lines["judgements"] = f"{in_words(facts['judgements'])} ({facts['judgements']['how']})"
    return lines


def _facts(config: Config, judging: Judging, judged: JudgedPairs) -> JsonObject:
    settings = judging.settings
    twice = between_opinions(judged.twice) if settings.double else None
    positive = config.labels.positives.grade
    common = _common(judging.queries, judged.grades, judging.qrels or {})
    judgements = with_judgements(common, judging.qrels, positive) if judging.qrels else None
    given = [grade for grades in judged.grades.values() for grade in grades.values()]
    return {
        "model": settings.model,
        "rubric": judging.rubric.name,
        "rubric_sha256": judging.rubric.sha256,
        "prompts_used": judging.made_of["prompts"],
        "depth": settings.depth,
        "double": settings.double,
        "max_chars": settings.max_chars,
        "pairs": judged.pairs,
        "graded": len(given),
        "grades": {str(grade): given.count(grade) for grade in range(HIGHEST + 1)},
        "ungraded": dict(sorted(judged.ungraded.items())),
        "no_second": dict(sorted(judged.no_second.items())),
        "cut": judged.cut,
        "second_opinion": twice and twice.to_json(),
        "judgements": judgements and judgements.to_json(),
        "prompts": judged.prompts,
        "known": judged.known,
        "used": asdict(judged.used),
        "cost": round(judged.cost, 6),
        "priced": config.cost.price(settings.model) not in (None, PriceConfig()),
        "currency": config.cost.currency,
    }


def _common(queries: Sequence[ToJudge], grades: Qrels, qrels: Qrels) -> list[tuple[int, int]]:
    """The pairs that both have graded: the judge's grade and that of the judgements."""
    found = []
    for query in queries:
        theirs = merge_grades(qrels, list(query.query_ids)) or {}
        ours = grades.get(query.query_id, {})
        found += [(grade, theirs[doc_id]) for doc_id, grade in ours.items() if doc_id in theirs]
    return found


def _of(estimate: CallEstimate) -> JsonObject:
    return {"prompts": estimate.distinct, "known": estimate.known, "most": asdict(estimate.most)}
