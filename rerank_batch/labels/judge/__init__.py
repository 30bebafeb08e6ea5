"""A language model as the source of truth: it grades what a run found, and is held to account."""

from rerank_batch.labels.judge.agreement import Agreement, between_opinions, with_judgements
from rerank_batch.labels.judge.judging import Judge, JudgedPairs, JudgeUse
from rerank_batch.labels.judge.pairs import ToJudge, queries_to_judge
from rerank_batch.labels.judge.prompts import Rubric, read_rubric, version

__all__ = [
    "Agreement",
    "Judge",
    "JudgeUse",
    "JudgedPairs",
    "Rubric",
    "ToJudge",
    "between_opinions",
    "queries_to_judge",
    "read_rubric",
    "version",
    "with_judgements",
]
