from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import LabelSplitConfig
from rerank_batch.errors import InputError
from rerank_batch.labels.splits import (
    SAME_QUERY,
    SHARED_DOCUMENT,
    SIMILAR_QUERY,
    HeldOut,
    SplitQuery,
    WrittenQuery,
    check_leaks,
    split_queries,
)

SHARES = LabelSplitConfig(dev=0.2, test=0.2)
NOTHING_EMPTY = LabelSplitConfig(dev=0, test=0)


def queries(count: int, documents: int | None = None) -> list[SplitQuery]:
    """Queries that share no word; with ``documents`` fewer documents than queries."""
    return [
        SplitQuery(
            [f"q{n:04d}"],
            f"about thing{n} and thing{n}b or thing{n}c",
            [f"d{n % (documents or count)}"],
        )
        for n in range(count)
    ]


def written(asked, splits):
    return [
        WrittenQuery(
            query.query_ids,
            query.text,
            split,
            [d for d in query.positives if not splits.is_held_out(d, split)],
        )
        for query, split in zip(asked, splits.splits, strict=True)
    ]


def test_groups_fall_into_splits_by_their_shares_whatever_the_order():
    asked = queries(2000)
    splits = split_queries(asked, SHARES, seed=0)
    counts = Counter(splits.splits)
    assert counts["dev"] == pytest.approx(400, abs=80)
    assert counts["test"] == pytest.approx(400, abs=80)
    backwards = split_queries(asked[::-1], SHARES, seed=0)
    assert backwards.splits[::-1] == splits.splits
    assert split_queries(asked, SHARES, seed=1).splits != splits.splits
    # More queries move none that was there.
    assert split_queries(queries(2500), SHARES, seed=0).splits[:2000] == splits.splits


def test_what_is_near_or_shares_a_document_stays_together():
    asked = [
        SplitQuery(["q1"], "how to mend a flat bicycle tyre", ["a"]),
        SplitQuery(["q2"], "how to mend a flat, old BICYCLE tyre?", ["b"]),  # 7 of 8 words
        SplitQuery(["q3"], "the capital of France", ["b", "c"]),
        SplitQuery(["q4"], "paris, which country", ["c"]),
        SplitQuery(["q5"], "something else entirely", ["d"]),
    ]
    assert split_queries(asked, NOTHING_EMPTY, 0).groups == ["q1"] * 4 + ["q5"]
    apart = LabelSplitConfig(dev=0, test=0, shared="drop")
    assert split_queries(asked, apart, 0).groups == ["q1", "q1", "q3", "q4", "q5"]
    strict = LabelSplitConfig(dev=0, test=0, shared="drop", similarity=1.0)
    assert split_queries(asked, strict, 0).groups == ["q1", "q2", "q3", "q4", "q5"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join),
            st.lists(st.integers(0, 30), max_size=2),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["together", "drop"]),
    st.integers(0, 5),
)
def test_what_is_split_never_leaks(drawn, shared, seed):
    asked = [
        SplitQuery([f"q{n}"], text, [f"d{d}" for d in found])
        for n, (text, found) in enumerate(drawn)
    ]
    config = LabelSplitConfig(dev=0.3, test=0.3, shared=shared)
    held_out = HeldOut({"q0"}, {"d0", "d1"})
    try:
        splits = split_queries(asked, config, seed, held_out)
    except InputError:
        return  # too few groups for three splits
    check = check_leaks(written(asked, splits), 0.8, held_out)
    assert check.passed, check.leaks
    assert splits.splits[0] == "test"


def test_a_dropped_document_is_dropped_from_the_looser_split_alone():
    asked = queries(300, documents=40)
    splits = split_queries(asked, LabelSplitConfig(dev=0.2, test=0.2, shared="drop"), 0)
    assert len(set(splits.groups)) == 300
    order = ["train", "dev", "test"]
    for document in {d for query in asked for d in query.positives}:
        having = [s for q, s in zip(asked, splits.splits, strict=True) if document in q.positives]
        strictest = max(having, key=order.index)
        for split in order:
            assert splits.is_held_out(document, split) == (
                order.index(split) < order.index(strictest)
            )


def test_one_group_of_everything_is_refused_with_the_way_out():
    with pytest.raises(
        InputError, match=r"no query fell into (dev|test).*the largest of 100 .*drop"
    ):
        split_queries(queries(100, documents=1), SHARES, 0)


ROWS = [
    WrittenQuery(["q1", "q1b"], "how to mend a flat bicycle tyre", "train", ["a"]),
    WrittenQuery(["q2"], "the capital of France", "dev", ["b"]),
    WrittenQuery(["q3"], "something else entirely", "test", ["c"]),
]


def test_clean_rows_pass():
    check = check_leaks(ROWS, 0.8)
    assert check.passed
    assert check.to_json()["passed"] is True
    assert check.queries == check.positives == {"train": 1, "dev": 1, "test": 1}


@pytest.mark.parametrize(
    ("planted", "kind", "named"),
    [
        (WrittenQuery(["q1b"], "words nobody used", "test", []), SAME_QUERY, "q1b"),
        (WrittenQuery(["q9"], "something ELSE, entirely!", "train", []), SIMILAR_QUERY, "q9"),
        (
            WrittenQuery(["q9"], "how to mend a very flat bicycle tyre", "test", []),
            SIMILAR_QUERY,
            "q9",
        ),
        (WrittenQuery(["q9"], "words nobody used", "train", ["z", "c"]), SHARED_DOCUMENT, "c"),
        (WrittenQuery(["q9"], "words nobody used", "dev", ["c"]), SHARED_DOCUMENT, "c"),
        (WrittenQuery(["q9"], "words nobody used", "train", ["b"]), SHARED_DOCUMENT, "b"),
    ],
)
def test_a_planted_leak_is_found_and_named(planted, kind, named):
    check = check_leaks([*ROWS, planted], 0.8)
    assert not check.passed
    assert check.counts == {kind: 1}
    assert named in check.leaks[0]


def test_what_is_held_out_counts_as_test():
    held_out = HeldOut({"q2"}, {"a"})
    check = check_leaks(ROWS, 0.8, held_out)
    assert check.counts == {SAME_QUERY: 1, SHARED_DOCUMENT: 1}
