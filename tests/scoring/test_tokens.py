"""Spliced ids are the tokenizer's own, for any two texts and any length, in every family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.scoring.tokens import (
    NotSpliceable,
    PairTokenizer,
    TextTokenizer,
    longest_first,
    only_second,
)
from tests.conftest import WORDS
from tests.scoring.models import build_tokenizer

FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")
TOKENIZERS = {family: build_tokenizer(family) for family in FAMILIES}

TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join),
    st.sampled_from(["", "[SEP]", "<pad> <s>", "  spaced  out ", "北京 мир café"]),
)


@settings(max_examples=25, deadline=None)
@given(
    queries=st.lists(TEXTS, min_size=1, max_size=3),
    documents=st.lists(TEXTS, min_size=1, max_size=3),
    limit=st.one_of(st.none(), st.integers(5, 40)),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_what_the_tokenizer_makes_of_them(family, queries, documents, limit):
    tokenizer = TOKENIZERS[family]
    pair = PairTokenizer(tokenizer, limit)
    query_of, document_of = (
        part.ravel() for part in np.meshgrid(range(len(queries)), range(len(documents)))
    )
    rows = pair.rows(pair.tokenize(queries), pair.tokenize(documents), query_of, document_of)
    batch = rows.batch(np.arange(len(query_of)))
    pairs = [(queries[q], documents[d]) for q, d in zip(query_of, document_of, strict=True)]
    theirs = tokenizer(
        pairs,
        truncation="longest_first" if limit else False,
        max_length=limit,
        padding=True,
        return_token_type_ids=True,
        return_tensors="np",
    )
    mask = theirs["attention_mask"].astype(bool)
    np.testing.assert_array_equal(batch.lengths, mask.sum(axis=1))
    np.testing.assert_array_equal(batch.ids, theirs["input_ids"][mask])
    np.testing.assert_array_equal(batch.types, theirs["token_type_ids"][mask])
    whole = [len(ids) for ids in tokenizer(pairs)["input_ids"]]
    np.testing.assert_array_equal(rows.truncated, np.array(whole) > (limit or 10**9))


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), limit=st.integers(3, 40))
@pytest.mark.parametrize("family", FAMILIES)
def test_single_texts_are_what_the_tokenizer_makes_of_them(family, texts, limit):
    tokenizer = TOKENIZERS[family]
    batch = TextTokenizer(tokenizer, limit).rows(texts).batch(np.arange(len(texts)))
    theirs = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    assert np.split(batch.ids, np.cumsum(batch.lengths)[:-1])[0].tolist() == theirs[0]
    assert batch.ids.tolist() == [token for ids in theirs for token in ids]


@given(query=st.integers(0, 60), document=st.integers(0, 60), room=st.integers(0, 60))
def test_truncation_fills_the_room_and_cuts_the_longer(query, document, room):
    kept = [int(part) for part in longest_first(np.array(query), np.array(document), room)]
    assert sum(kept) == min(query + document, room)
    assert kept[0] <= query
    assert kept[1] <= document
    if query + document > room and kept[0] < query and kept[1] < document:
        assert abs(kept[0] - kept[1]) <= 1
    alone = [int(part) for part in only_second(np.array(query), np.array(document), room)]
    assert alone == [min(query, room), min(document, room - min(query, room))]


def test_positions_of_roberta_begin_behind_the_padding_and_skip_it():
    tokenizer = TOKENIZERS["roberta"]
    assert tokenizer.pad_token_id == 1
    pair = PairTokenizer(tokenizer, 40, position_of_padding=1)
    tokens = pair.tokenize(["river<pad>stone", "cloud"])
    batch = pair.rows(tokens, tokens, np.array([0, 1]), np.array([1, 1])).batch(np.array([1, 0]))
    first, second = np.split(batch.positions, np.cumsum(batch.lengths)[:-1])
    assert first.tolist() == list(range(2, 2 + len(first)))
    at = int(np.flatnonzero(batch.ids[len(first) :] == 1)[0])
    assert second[at] == 1
    assert second[at + 1] == second[at - 1] + 1


def test_a_tokenizer_that_reads_a_pair_as_a_whole_is_refused():
    class Joined:
        """Gives other ids to a text in a pair than alone."""

        is_fast, truncation_side = True, "right"

        def __init__(self, inner):
            self.inner = inner

        def __call__(self, texts, **options):
            found = self.inner(texts, **options)
            if isinstance(texts[0], tuple):
                for ids in found["input_ids"]:
                    ids[-2] += 1
            return found

    with pytest.raises(NotSpliceable, match="more than their ids"):
        PairTokenizer(Joined(TOKENIZERS["bert"]), 40)
