import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rerank_batch.labels.rules import Text
from rerank_batch.labels.similarity import jaccard, shingles, similar_pairs, words


def test_words_know_no_case_no_form_and_no_punctuation():
    assert words("The Café, ﬁnally!") == words("the CAFÉ finally") == ["the", "café", "finally"]
    assert words("?!") == ["?!"], "a text without words is one itself"


def test_a_changed_word_of_a_short_text_costs_as_many_shingles_as_it_is_in():
    text = "one two three four five six seven eight nine ten"
    other = text.replace("five", "FIFE")
    for length, common in ((3, 5), (1, 9)):
        one, two = (shingles(words(each), length) for each in (text, other))
        assert jaccard(one, two) == pytest.approx(common / 11)
    assert shingles(["one", "two"], 3) == frozenset([("one", "two")])


@settings(max_examples=100, deadline=None)
@given(
    *[st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join)] * 2,
    st.sampled_from([0.2, 0.5, 0.6, 0.75, 0.8, 0.9, 1.0]),
    st.integers(1, 3),
)
def test_what_is_near_is_found_without_cutting_up_what_is_not(one, other, threshold, length):
    similarity = jaccard(shingles(words(one), length), shingles(words(other), length))
    found = Text(one, length).is_near(Text(other, length), threshold)
    assert found == (similarity >= threshold - 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=7).map(" ".join), max_size=25),
    st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 1.0]),
)
def test_pairs_are_those_of_comparing_each_with_each(texts, threshold):
    sets = [frozenset(words(text)) for text in texts]
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold - 1e-12
    }
    found = set(map(tuple, similar_pairs(texts, threshold).tolist()))
    assert found <= expected, "no pair that is none"
    # Of texts with the same words only the first stands for them: the groups are the same.
    assert groups(found, len(texts)) == groups(expected, len(texts))


def groups(pairs, nodes):
    edges = np.array(sorted(pairs), dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1].tolist() if nodes else []
