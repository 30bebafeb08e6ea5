"""A dictionary that a score cache has to agree with, and the way from one to the other."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from rerank_batch.score_cache import Keys, KnownScores, write_block
from rerank_batch.storage import Root

Key = tuple[int, int]

# Few, so that pairs meet; equal in either half, so that both halves have to be compared.
HALVES = (0, 1, 2**63, 2**64 - 1)
KEYS: list[Key] = [(hi, lo) for hi in HALVES for lo in HALVES]


class Row(NamedTuple):
    query: Key
    document: Key
    score: float
    truncated: bool = False


class Block(NamedTuple):
    """What one task scored on one day."""

    rows: Sequence[Row]
    day: int


Model = dict[tuple[Key, Key], tuple[bytes, bool]]
"""Pair -> the bits of its score, and whether it was truncated."""

key = st.sampled_from(KEYS)
score = st.one_of(st.sampled_from([-0.0, 0.0, 1.5]), st.floats(allow_nan=False, width=32)).filter(
    np.isfinite
)
block = st.builds(
    Block, st.lists(st.builds(Row, key, key, score, st.booleans()), max_size=12), st.integers(1, 4)
)


def keys_of(keys: Iterable[Key]) -> Keys:
    return np.array(list(keys), dtype=np.uint64).reshape(-1, 2)


def write(file: Path, block: Block) -> Path:
    """The block as a worker writes it; every second row names its query by another copy of it."""
    queries = [row.query for row in block.rows]
    write_block(
        file,
        keys_of([*queries, *queries]),
        np.array([n + len(queries) * (n % 2) for n in range(len(queries))], dtype=np.int64),
        keys_of(row.document for row in block.rows),
        np.array([row.score for row in block.rows], dtype=np.float32),
        np.array([row.truncated for row in block.rows], dtype=bool),
        block.day,
    )
    return file


TWENTY = [Row(KEYS[n // 16], KEYS[n % 16], float(n)) for n in range(20)]


def bad_offset(file: Path) -> Path:
    """Make the pairs of `TWENTY`'s second query begin far outside of the file; it still opens."""
    body = bytearray(file.read_bytes())
    place = body.index(np.array([0, 16, 20], dtype=np.int64).tobytes())
    body[place + 8 : place + 16] = np.int64(2**50).tobytes()
    file.write_bytes(body)
    return file


def write_all(folder: Path, blocks: Iterable[Block]) -> list[Path]:
    return [write(folder / f"block-{number}.arrow", each) for number, each in enumerate(blocks)]


def model(blocks: Iterable[Block], oldest_day: int = 0) -> Model:
    """The first score of every pair, among those that are not too old."""
    known: Model = {}
    for each in blocks:
        if each.day >= oldest_day:
            for row in each.rows:
                value = np.float32(row.score).tobytes(), row.truncated
                known.setdefault((row.query, row.document), value)
    return known


class Finder(Protocol):
    def find(self, queries: Keys, query_of: Any, documents: Keys) -> KnownScores: ...


def ask(finder: Finder, keys: Sequence[Key] = KEYS) -> Model:
    """Everything that is found when each of the keys is asked for with each."""
    rows = np.arange(len(keys))
    query_of, document_of = np.repeat(rows, len(keys)), np.tile(rows, len(keys))
    answer = finder.find(keys_of(keys), query_of, keys_of(keys)[document_of])
    assert answer.score.dtype == np.float32
    assert np.isnan(answer.score[~answer.found]).all()
    assert not answer.truncated[~answer.found].any()
    return {
        (keys[query_of[n]], keys[document_of[n]]): (
            answer.score[n].tobytes(),
            bool(answer.truncated[n]),
        )
        for n in np.flatnonzero(answer.found)
    }


def content(file: Path) -> list[Mapping[str, Any]]:
    """The rows of a segment, by Arrow's own reader."""
    rows: list[Mapping[str, Any]] = pa.ipc.open_file(str(file)).read_all().to_pylist()
    return rows


class Wrapped:
    """A root, to be overridden in parts."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def __getattr__(self, name: str) -> Any:
        return getattr(self._root, name)
