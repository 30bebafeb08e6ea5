"""Which texts say nearly the same: Jaccard similarity of sets of words, computed exactly.

MinHash estimates this number where all pairs of a large set of long texts are in question. Here no
estimate is needed. A query's documents are compared with its few positives, one by one. Queries are
short, so that all pairs above a threshold can be found by their rarest words: of two sets that
similar, the first few words, the rarest first, must share one (prefix filtering: Chaudhuri et al.
2006, "A Primitive Operator for Similarity Joins in Data Cleaning"; Bayardo et al. 2007, "Scaling Up
All Pairs Similarity Search"). No pair is missed, so that what groups queries and what checks for
leaks cannot disagree.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_LEFT_ROWS = 20_000
_PAIRS = 500_000
_SLACK = 1e-9

Shingles = frozenset[Any]


def words(text: str) -> list[str]:
    """The words of a text without case, in order; a text that has none is one word itself."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or [folded.strip()]


def shingles(found: Sequence[str], length: int) -> Shingles:
    """Every run of ``length`` words; of a shorter text all of it is one."""
    if len(found) <= length:
        return frozenset([tuple(found)])
    return frozenset(zip(*(found[start:] for start in range(length)), strict=False))


def jaccard(one: Shingles, other: Shingles) -> float:
    """The share of the union that both have, from 0 to 1."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def similar_pairs(texts: Sequence[str], threshold: float) -> NDArray[np.int64]:
    """Numbers i < j of all texts whose sets of words have that Jaccard similarity or more.

    Shape [pairs, 2]. Texts with the same words are paired with the first of them only: whoever
    joins pairs to groups loses nothing by it. ``threshold`` is above 0, at most 1.
    """
    sets = [sorted(set(words(text))) for text in texts]
    first: dict[tuple[str, ...], int] = {}
    leaders = [first.setdefault(tuple(each), number) for number, each in enumerate(sets)]
    same = [(leader, number) for number, leader in enumerate(leaders) if leader != number]
    pairs = [np.array(same, dtype=np.int64).reshape(-1, 2)]
    if threshold < 1:
        pairs += _join(list(first.values()), sets, threshold)
    return np.concatenate(pairs)


def _join(
    numbers: Sequence[int], sets: Sequence[list[str]], threshold: float
) -> list[NDArray[np.int64]]:
    """Pairs of different sets, by the rarest words of each."""
    frame = pl.DataFrame(
        {"id": numbers, "word": [sets[number] for number in numbers]},
        schema={"id": pl.Int64, "word": pl.List(pl.String)},
    ).explode("word")
    ranked = (
        frame.with_columns(often=pl.len().over("word"), size=pl.len().over("id"))
        .sort("id", "often", "word")
        .with_columns(place=pl.int_range(pl.len()).over("id"))
    )
    codes = ranked.select("id", code=pl.col("word").rank("dense").cast(pl.UInt32))
    lists = codes.group_by("id").agg("code")
    least = (pl.col("size") * threshold - _SLACK).ceil()
    prefixes = ranked.filter(pl.col("place") <= pl.col("size") - least).drop("often").sort("id")
    found: list[NDArray[np.int64]] = []
    for start in range(0, prefixes.height, _LEFT_ROWS):
        left = prefixes.slice(start, _LEFT_ROWS)
        size, other = pl.col("size"), pl.col("size_right")
        needed = ((size + other) * (threshold / (1 + threshold)) - _SLACK).ceil()
        possible = 1 + pl.min_horizontal(
            size - pl.col("place") - 1, other - pl.col("place_right") - 1
        )
        candidates = (
            left.join(prefixes, on="word")
            .filter((pl.col("id") < pl.col("id_right")) & (possible >= needed))
            .select("id", "id_right")
            .unique()
        )
        for part in range(0, candidates.height, _PAIRS):
            found.append(_verified(candidates.slice(part, _PAIRS), lists, threshold))
    # A pair can be found from two chunks of its words.
    return [np.unique(np.concatenate(found), axis=0)] if found else []


def _verified(candidates: pl.DataFrame, lists: pl.DataFrame, threshold: float) -> Any:
    both = candidates.join(lists, on="id").join(lists, left_on="id_right", right_on="id")
    common = pl.col("code").list.set_intersection("code_right").list.len()
    union = pl.col("code").list.len() + pl.col("code_right").list.len() - common
    similar = both.filter(common / union >= threshold - _SLACK)
    return similar.select("id", "id_right").to_numpy().astype(np.int64)
