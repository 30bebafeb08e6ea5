"""Each rule on a case made by hand: exactly which documents it keeps out, and that it says so."""

import pytest

from tests.labels.small import corpus, labels_config, mined, negatives, removed, run_of

POSITIVE = "the pump of the garden fountain must be cleaned in spring before it runs again"

TEXTS = {
    "pos": POSITIVE,
    "same": POSITIVE.upper() + "!",
    "near": POSITIVE + " today",
    "far": "a recipe for bread with honey and walnuts that keeps fresh for many days indeed",
    "high": "roses want a place in the sun and a soil that never dries out wholly in summer",
    "mid": "paint for wooden fences lasts longer where the wood was dry and clean before",
    "low": "trains to the coast leave every hour from the southern platform of the station",
    "other": "the history of the town hall begins with a fire that nobody could explain then",
}

# Retrieval order is that of the list; the teacher's logits are the last numbers.
HITS = [
    ("same", 0.9, -9.0),
    ("pos", 0.8, 2.0),
    ("near", 0.7, -9.0),
    ("high", 0.6, 1.9),
    ("mid", 0.5, 1.0),
    ("far", 0.4, -1.0),
    ("low", 0.3, -4.0),
]

OFF = {"share": None, "exact_duplicate": False, "near_duplicate": None}


def one(tmp_path, filters, qrels=None, **settings):
    source = run_of(tmp_path / "run", {"q1": HITS})
    config = labels_config(filters={**OFF, **filters}, **settings)
    (row,) = mined(corpus(tmp_path / "texts", TEXTS), source, qrels or {"q1": {"pos": 1}}, config)
    return row


EVERY = ["same", "near", "high", "mid", "far", "low"]


@pytest.mark.parametrize(
    ("filters", "kept_out", "rule"),
    [
        ({}, [], None),
        # sigmoid(2.0) = 0.881, 95 % of it 0.837; sigmoid(1.9) = 0.870, sigmoid(1.0) = 0.731
        ({"share": 0.95}, ["high"], "share"),
        ({"share": 0.8}, ["high", "mid"], "share"),
        # As shares of the raw logit: 0.95 * 2.0 = 1.9, which 1.9 is not above
        ({"share": 0.94, "scale": "raw"}, ["high"], "share"),
        ({"margin": 0.5}, ["high"], "margin"),
        ({"margin": 1.5}, ["high", "mid"], "margin"),
        ({"score": -2.0}, ["high", "mid", "far"], "score"),
        ({"probability": 0.5}, ["high", "mid"], "probability"),
        ({"probability": 0.999, "scale": "raw"}, ["high", "mid"], "probability"),
        ({"exact_duplicate": True}, ["same"], "exact_duplicate"),
        ({"near_duplicate": 0.8}, ["same", "near"], "near_duplicate"),
        ({"near_duplicate": 0.95}, ["same"], "near_duplicate"),
    ],
)
def test_each_rule_keeps_out_exactly_what_it_says(tmp_path, filters, kept_out, rule):
    config_scale = filters.get("scale") != "raw"
    source = run_of(tmp_path / "run", {"q1": HITS})
    config = labels_config(filters={**OFF, **filters})
    (row,) = mined(
        corpus(tmp_path / "texts", TEXTS),
        source,
        {"q1": {"pos": 1}},
        config,
        is_logit=config_scale,
    )
    assert negatives(row) == [doc for doc in EVERY if doc not in kept_out]
    expected = {"judged_relevant": 1, **({rule: len(kept_out)} if rule else {})}
    assert removed(row) == expected
    assert row["looked_at"] == len(HITS)


def test_a_document_counts_for_the_first_rule_that_applies(tmp_path):
    row = one(tmp_path, {"share": 0.95, "margin": 1.5, "exact_duplicate": True})
    assert removed(row) == {"judged_relevant": 1, "share": 1, "margin": 1, "exact_duplicate": 1}
    assert negatives(row) == ["near", "far", "low"]


def test_what_was_judged_is_what_it_was_judged_to_be(tmp_path):
    """A document judged not relevant stays a negative, whatever the teacher thinks of it."""
    row = one(
        tmp_path,
        {"share": 0.8},
        {"q1": {"pos": 2, "high": 0, "far": 1, "mid": 2}},
        positives={"grade": 2},
    )
    assert negatives(row) == ["same", "near", "high", "low"]
    assert removed(row) == {"judged_relevant": 2, "judged_partly": 1}
    labels = {each["doc_id"]: each["label"] for each in row["documents"]}
    assert labels == {"pos": 2, "mid": 2, "same": None, "near": None, "high": 0, "low": None}


def test_of_several_positives_the_best_or_the_least_counts(tmp_path):
    qrels = {"q1": {"pos": 1, "far": 1}}
    highest = one(tmp_path / "a", {"margin": 0.0, "against": "highest"}, qrels)
    assert negatives(highest) == ["same", "near", "high", "mid", "low"]
    lowest = one(tmp_path / "b", {"margin": 0.0, "against": "lowest"}, qrels)
    assert negatives(lowest) == ["same", "near", "low"]


def test_a_positive_below_zero_still_has_a_share(tmp_path):
    """Of a similarity of -1 the share of 0.9 is -1.1: what is above it is kept out."""
    source = run_of(
        tmp_path / "run", {"q1": [("pos", 0.9, -1.0), ("far", 0.8, -1.05), ("low", 0.7, -1.2)]}
    )
    config = labels_config(filters={**OFF, "share": 0.9})
    texts = corpus(tmp_path / "texts", TEXTS)
    (row,) = mined(texts, source, {"q1": {"pos": 1}}, config, is_logit=False)
    assert negatives(row) == ["low"]


def test_rules_on_scores_say_nothing_where_the_teacher_read_neither(tmp_path):
    """A positive that was not retrieved has no score, and nothing is held against it."""
    row = one(tmp_path, {"share": 0.8, "exact_duplicate": True}, {"q1": {"other": 1}})
    assert negatives(row) == ["same", "pos", "near", "high", "mid", "far", "low"]
    (positive,) = [each for each in row["documents"] if each["role"] == "positive"]
    assert (positive["rank"], positive["teacher_score"]) == (None, None)
    assert positive["document"] == TEXTS["other"]
