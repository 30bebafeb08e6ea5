"""A grade that a model wrote, read strictly: what could be guessed could also be planted."""

import json
import re

from rerank_batch.llm.replies import NotInForm

HIGHEST = 3
"""The best grade of a rubric; the least is 0."""

NO_GRADE, OUT_OF_RANGE = "no_grade", "out_of_range"
"""Why a reply has no grade: it is something else than a number, or a number that is no grade."""


def read_grade(text: str) -> int:
    """The grade in a reply: one digit, or an object with nothing but a grade.

    Raises:
        NotInForm: it is anything else, however easily one could guess what it means.
    """
    if digit := _DIGIT.match(text):
        return int(digit[1])
    if _NUMBER.match(text):
        raise NotInForm(OUT_OF_RANGE)
    fenced = _FENCED.match(text)
    try:
        reply = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        raise NotInForm(NO_GRADE) from None
    if not isinstance(reply, dict) or reply.keys() != {"grade"}:
        raise NotInForm(NO_GRADE)
    grade = reply["grade"]
    if isinstance(grade, bool) or not isinstance(grade, int | float):
        raise NotInForm(NO_GRADE)
    if not isinstance(grade, int) or not 0 <= grade <= HIGHEST:
        raise NotInForm(OUT_OF_RANGE)
    return grade


_DIGIT = re.compile(rf"\s*([0-{HIGHEST}])\s*\Z")
_NUMBER = re.compile(r"\s*[-+]?[0-9]+(\.[0-9]+)?\s*\Z")
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)
