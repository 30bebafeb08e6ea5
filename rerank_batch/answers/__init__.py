"""What a system's list is worth to a reader: an answer from its top, graded against a reference."""

from rerank_batch.answers.check import (
    ANSWER_GRADE,
    AnswerGrades,
    AnswerTask,
    AnswerUse,
    Called,
    check_answers,
    outcome_table,
)
from rerank_batch.data.references import References, read_references
from rerank_batch.llm.grades import HIGHEST

__all__ = [
    "ANSWER_GRADE",
    "HIGHEST",
    "AnswerGrades",
    "AnswerTask",
    "AnswerUse",
    "Called",
    "References",
    "check_answers",
    "outcome_table",
    "read_references",
]
