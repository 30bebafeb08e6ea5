"""The total order: the same best documents however they were cut into shards."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.ranking import PAD, cascade_order, deepest, merge, order, top_k

# Few values, so that ties abound; both zeros are the same score.
SCORES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 2.0])
HITS = st.dictionaries(st.integers(0, 30), SCORES, max_size=16)


def best(hits: dict[int, float], k: int) -> list[tuple[int, float]]:
    return sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))[:k]


def as_arrays(rows: list[list[tuple[int, float]]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and documents of shape [rows, width]; padding has the best score there is."""
    scores = np.full((len(rows), width), 99.0, dtype=np.float32)
    documents = np.full((len(rows), width), PAD, dtype=np.int64)
    for number, row in enumerate(rows):
        for place, (document, score) in enumerate(row):
            scores[number, place], documents[number, place] = score, document
    return scores, documents


def as_rows(scores: np.ndarray, documents: np.ndarray) -> list[list[tuple[int, float]]]:
    """The hits of every row, without the padding, which must all be at the end."""
    rows = []
    for values, names in zip(scores.tolist(), documents.tolist(), strict=True):
        real = names.index(PAD) if PAD in names else len(names)
        assert names[real:] == [PAD] * (len(names) - real)
        rows.append(list(zip(names, values, strict=True))[:real])
    return rows


@given(HITS, st.randoms())
def test_order_is_score_descending_then_document_ascending(
    hits: dict[int, float], random: object
) -> None:
    listed = list(hits.items())
    random.shuffle(listed)  # type: ignore[attr-defined]
    scores = np.array([score for _, score in listed], dtype=np.float32)
    documents = np.array([document for document, _ in listed], dtype=np.int64)
    assert documents[order(scores, documents)].tolist() == [d for d, _ in best(hits, len(hits))]


@given(st.data(), st.integers(1, 3))
def test_a_cascade_puts_what_was_read_longer_first(data: st.DataObject, stages: int) -> None:
    """Checked against a sort of tuples: how many stages read it, its last score, its document."""
    score = st.sampled_from([-1.5, 0.0, 0.25, 2.0])
    listed = [
        (document, data.draw(st.lists(score, min_size=1, max_size=1 + stages)))
        for document in data.draw(st.sets(st.integers(0, 30), max_size=12))
    ]
    scores = np.full((1 + stages, len(listed)), np.nan, dtype=np.float32)
    for place, (_, read) in enumerate(listed):
        scores[: len(read), place] = read
    documents = np.array([document for document, _ in listed], dtype=np.int64)
    expected = sorted(listed, key=lambda each: (-len(each[1]), -each[1][-1], each[0]))
    assert documents[cascade_order(scores, documents)].tolist() == [d for d, _ in expected]
    assert deepest(scores).tolist() == [read[-1] for _, read in listed]


@given(st.data(), st.integers(1, 4), st.integers(1, 12))
def test_merging_shards_gives_the_best_of_their_union(
    data: st.DataObject, shards: int, k: int
) -> None:
    queries = data.draw(st.lists(HITS, min_size=1, max_size=3))
    shard_of = data.draw(st.lists(st.integers(0, shards - 1), min_size=31, max_size=31))
    parts = []
    for shard in range(shards):
        rows = [
            best({d: s for d, s in hits.items() if shard_of[d] == shard}, k) for hits in queries
        ]
        width = max(1, *(len(row) for row in rows), data.draw(st.integers(1, k)))
        parts.append(as_arrays(rows, width))
    expected = [best(hits, k) for hits in queries]
    assert as_rows(*merge(parts, k)) == expected
    assert as_rows(*merge([merge(parts[:1], k), *parts[1:]], k)) == expected
    assert as_rows(*merge(parts[::-1], k)) == expected


@given(st.lists(HITS, min_size=1, max_size=3), st.integers(1, 12), st.integers(0, 4))
def test_top_k_puts_padding_last_whatever_its_score(
    queries: list[dict[int, float]], k: int, padding: int
) -> None:
    width = max(len(hits) for hits in queries) + padding + 1
    scores, documents = as_arrays([list(hits.items()) for hits in queries], width)
    mixed = np.random.default_rng(0).permutation(width)
    kept = top_k(scores[:, mixed], documents[:, mixed], k)
    assert kept[0].shape == kept[1].shape == (len(queries), min(k, width))
    assert as_rows(*kept) == [best(hits, k) for hits in queries]
