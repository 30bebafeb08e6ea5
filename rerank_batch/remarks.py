"""Remarks: inputs that can be read but look wrong, for the summary of a command.

A remark never stops a job; what has to stop it is an error (`errors`), and what loses a row is a
counted reject.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.schema import JsonObject

LEFT_ALONE = "default_column_left_alone"
"""The kind of remark on a column of a usual name that holds something else."""

IN_SOME_FILES = "column_in_some_files"
"""That on a column that may be missing, where some files have it and some do not."""


@dataclass(frozen=True)
class Remark:
    """One suspicious thing about an input.

    ``section`` is the part of the configuration that names the input (corpus, queries, qrels,
    retrieval.exclude …), ``kind`` a fixed name that programs can test for, ``count`` the number of
    files, rows or ids concerned, and ``text`` one sentence with the file or column, what was done
    with it, and what to change if that is not what was meant.
    """

    section: str
    kind: str
    count: int
    text: str

    def __str__(self) -> str:
        return f"{self.section}: {self.text}"

    def to_json(self) -> JsonObject:
        """The object that ``--json`` and final.json hold."""
        return asdict(self)


@dataclass(frozen=True)
class NotKnown:
    """A value that is not known, and why."""

    reason: str


IDS_MATCH_NOTHING = "ids_match_nothing"
"""The kind of a remark on ids of which more than half are nowhere."""

Lookup = Callable[[Sequence[str]], Collection[str]]
"""Which of some ids are known."""


def unmatched(
    section: str, what: str, ids: Sequence[str], known: Lookup, where: str
) -> Remark | None:
    """A remark where more than half of the distinct ``ids`` are not known; None elsewhere.

    ``what`` names them (``judged documents``), ``where`` what they were looked up in (``the
    corpus``). Where an id of another form is known, such as d001 for D001, the remark says so.
    """
    known_ids = set(known(ids))
    missing = [name for name in ids if name not in known_ids]
    if len(missing) * 2 <= len(ids):
        return None
    shown = ", ".join(map(repr, missing[:_EXAMPLES]))
    pair = _in_another_form(missing[:_TRIED], known)
    if pair is None:
        hint = "Do the ids have another form there?"
    else:
        hint = f"The ids have another form there: {pair[0]!r} is {pair[1]!r}"
    text = f"{len(missing):,} of {len(ids):,} {what} are not in {where}, such as {shown}. {hint}"
    return Remark(section, IDS_MATCH_NOTHING, len(missing), text)


def remark_objects(remarks: Iterable[Remark]) -> list[JsonObject]:
    """Remarks as the objects of a summary; each once."""
    return [remark.to_json() for remark in dict.fromkeys(remarks)]


def read_remarks(objects: Iterable[Mapping[str, Any]]) -> tuple[Remark, ...]:
    """The remarks of a summary, from what `remark_objects` made of them."""
    return tuple(Remark(**each) for each in objects)


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Counts by name as one line, such as ``reason 3, other 1``; ``none`` where there are none."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _in_another_form(ids: Sequence[str], known: Lookup) -> tuple[str, str] | None:
    """The first id that is known in another form, and that form."""
    forms = {name: _forms(name) for name in ids}
    known_forms = set(known(sorted({form for some in forms.values() for form in some})))
    pairs = ((name, form) for name, some in forms.items() for form in some if form in known_forms)
    return next(pairs, None)


def _forms(name: str) -> list[str]:
    """What programs make of an id: other case, without zeros, blanks, a prefix or a suffix."""
    forms = [
        name.lower(),
        name.upper(),
        name.strip(),
        name.lstrip("0"),
        name.removesuffix(".0"),
        f"{name}.0",
        name.strip("\"'"),
        re.split(r"[/:#]", name)[-1],
        re.sub(r"\D+", "", name),
        re.sub(r"\D+", "", name).lstrip("0"),
        unicodedata.normalize("NFC", name),
        unicodedata.normalize("NFD", name),
        *(name.zfill(width) for width in range(len(name) + 1, 13) if name.isdigit()),
    ]
    return [form for form in dict.fromkeys(forms) if form and form != name]


_EXAMPLES, _TRIED = 2, 20
