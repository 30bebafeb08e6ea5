"""TREC run files: the rankings of a system, read and written.

Knows lines of ``query Q0 document rank score tag``, not what they are compared with.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from rerank_batch.data.lines import read_lines
from rerank_batch.errors import InputError
from rerank_batch.storage import input_files
from rerank_batch.storage.text_streams import with_packed

SUFFIXES = with_packed(".trec", ".run", ".txt")

Ranking = list[tuple[str, float]]
"""Documents with their scores, the best first."""

_SHOWN = 4
_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_run(path: str | Path) -> dict[str, Ranking]:
    """Rankings by query, in the order in which trec_eval takes them.

    That is by score, the highest first, and where scores are equal in float32, as trec_eval holds
    them, by document id, the last in the order of its bytes first. It reads no ranks, and neither
    does this.

    Raises:
        InputError: nothing there, a line that is none of a run, a document that stands twice for a
            query, or files of several runs; the message names the line or the files.
    """
    scores: dict[str, dict[str, float]] = {}
    tags: dict[str, set[bytes]] = {}
    for file in input_files(str(path), SUFFIXES, "run"):
        names = tags.setdefault(file.name, set())
        for number, line in read_lines(file, "run"):
            if not line.strip():
                continue
            query, document, score = _parse(line, where := f"{file} line {number}")
            names.add(line.split()[-1])
            if document in scores.setdefault(query, {}):
                raise InputError(
                    f"run: {where} ranks document {document} for query {query} a second time"
                )
            scores[query][document] = score
    _refuse_several(tags, path)
    if not scores:
        raise InputError(f"run: {path} holds no ranking")
    return {
        query: sorted(found.items(), key=_order, reverse=True) for query, found in scores.items()
    }


def run_lines(query_id: str, ranking: Iterable[tuple[str, int]], tag: str) -> Iterator[str]:
    """The lines of one query, from documents with their ranks; the score is the negative rank.

    Raises:
        InputError: an id has white space.
    """
    for document, rank in ranking:
        for name in (query_id, document):
            if not name or name.split() != [name]:
                raise InputError(
                    f"the id {name!r} has white space, which a TREC file cannot hold; "
                    "use --format jsonl or pairs"
                )
        yield f"{query_id} Q0 {document} {rank} {-rank} {tag}"


def _refuse_several(tags: Mapping[str, set[bytes]], path: str | Path) -> None:
    """Files of one run have its tag; the scores of two runs have no common order."""
    written = {name: found for name, found in tags.items() if found}
    different = {frozenset(found): name for name, found in reversed(written.items())}
    if len(different) > 1:
        listed = ", ".join(
            f"{name} ({b', '.join(sorted(found)[:2]).decode('utf-8', 'replace')})"
            for found, name in list(different.items())[::-1][:_SHOWN]
        )
        raise InputError(
            f"run: {path} holds several runs by their tags: {listed}. Name the file of one"
        )


def _parse(line: bytes, where: str) -> tuple[str, str, float]:
    fields = line.split()
    if len(fields) != 6 or not _NUMBER.fullmatch(fields[4]) or not np.isfinite(float(fields[4])):
        raise InputError(
            f"run: {where} is not 'query Q0 document rank score tag': "
            f"{line[:80].decode('utf-8', 'replace')!r}"
        )
    try:
        return fields[0].decode(), fields[2].decode(), float(fields[4])
    except UnicodeDecodeError as error:
        raise InputError(f"run: {where} is not UTF-8 text: {error}") from None


def _order(hit: tuple[str, float]) -> tuple[np.float32, bytes]:
    return np.float32(hit[1]), hit[0].encode()
