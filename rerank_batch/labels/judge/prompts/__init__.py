"""What the judge is asked, a versioned file each, and the rubric that says what grades mean.

``first`` is how every pair is asked about, ``second`` how some are asked about once more: in other
words and in another order, for an opinion of its own instead of the echo of the first. Both hold
the whole rubric and end in a digit; query and document enter as JSON strings on one line.

The rubric that is shipped grades from 0 to 3 as UMBRELA does (Upadhyay, Pradeep, Thakur, Craswell
and Lin, "UMBRELA: UMbrela is the (Open-Source Reproduction of the) Bing RELevance Assessor", 2024,
https://arxiv.org/abs/2406.06519), after Thomas, Spielman, Craswell and Mitra, "Large language
models can accurately predict searcher preferences", SIGIR 2024, https://arxiv.org/abs/2309.10621:
think of the intent, weigh how the content fits it and whether it can be trusted. Its words are our
own.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rerank_batch.errors import InputError
from rerank_batch.llm import prompts
from rerank_batch.llm.client import LlmRequest
from rerank_batch.llm.grades import HIGHEST
from rerank_batch.llm.prompts import quote
from rerank_batch.storage import input_files

Opinion = Literal["first", "second"]

FOLDER = Path(__file__).parent
FILES: dict[Opinion, str] = {"first": "first_v1.txt", "second": "second_v1.txt"}
RUBRIC = "rubric_v1.txt"

_WHAT = "labels.judge.rubric"
_MOST_CHARS = 20_000


@dataclass(frozen=True)
class Rubric:
    """What grades mean: the text, the name of its file and the sha256 of its bytes."""

    text: str
    name: str
    sha256: str


def read_rubric(path: str | None) -> Rubric:
    """The rubric of a text file, by default the one that is shipped.

    Raises:
        InputError: it is not there, no text, far too long, or silent about a grade.
    """
    file = input_files(path or str(FOLDER / RUBRIC), (".txt", ".md"), _WHAT)[0]
    with file.open() as source:
        raw = source.read()
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{_WHAT}: {file} is not UTF-8 text: {error}") from None
    if len(text) > _MOST_CHARS:
        raise InputError(
            f"{_WHAT}: {file} has {len(text):,} characters; every prompt holds all of it, so that "
            f"{_MOST_CHARS:,} are the most"
        )
    grades = map(str, range(HIGHEST + 1))
    if missing := [each for each in grades if not re.search(rf"(?<!\d){each}(?!\d)", text)]:
        raise InputError(
            f"{_WHAT}: {file} does not say what {', '.join(missing)} means; the judge gives grades "
            f"from 0 to {HIGHEST}, and the rubric has to name each of them"
        )
    return Rubric(text, file.name, hashlib.sha256(raw).hexdigest())


def judge_request(opinion: Opinion, rubric: Rubric, query: str, document: str) -> LlmRequest:
    """The prompt about one pair."""
    prompt = prompts.load(FOLDER / FILES[opinion])
    words = {"rubric": rubric.text, "query": quote(query), "document": quote(document)}
    first, again = (prompt.messages(words, again=again) for again in (False, True))
    return LlmRequest(first, again, [query, document])


def version(opinion: Opinion) -> str:
    """See `rerank_batch.llm.prompts.version`."""
    return prompts.version(FOLDER / FILES[opinion])
