"""In which words a configuration is refused."""

from typing import Any

import pytest

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError
from tests.support.configs import with_value


@pytest.mark.parametrize(
    ("key", "near", "others"),
    [
        ("corpuss", "corpus", ["queries", "index", "reranker", "compute"]),
        ("reranker.topk", "top_k", ["model", "max_length", "batch_tokens"]),
        ("queries.judge_only", "judged_only", ["path", "dedupe", "max_chars"]),
        ("compute.scorer", "scorers", ["encoders", "block_rows"]),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one_and_all_others(
    key: str, near: str, others: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value(key, 1))
    message = str(error.value)
    assert f"{key}: unknown key; did you mean {near!r}?" in message
    valid = message[message.index("valid keys: ") :]
    assert all(name in valid for name in [near, *others])


def test_an_unknown_key_like_no_other_gets_no_silly_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"zzzzzz: unknown key \(valid keys: ") as error:
        parse_config(with_value("zzzzzz", 1))
    assert "did you mean" not in str(error.value)


def test_every_problem_is_told_at_once() -> None:
    raw = with_value("retrieval.depth", 0)
    del raw["corpus"]
    raw["index"]["shardz"] = 2
    with pytest.raises(ConfigError) as error:
        parse_config(raw, source="job.yaml")
    message = str(error.value)
    assert message.startswith("job.yaml cannot be used")
    assert "corpus: required" in message
    assert "index.shardz" in message
    assert "retrieval.depth" in message
    assert "got 0" in message


@pytest.mark.parametrize("value", [-1, 1.5, -0.1, "x", None, [1], float("nan"), float("inf")])
def test_a_wrong_limit_is_told_once_with_what_it_may_be(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value("limits.max_rejects", value))
    problems = str(error.value).splitlines()[1:]
    assert len(problems) == 1, problems
    assert problems[0].startswith("  - limits.max_rejects: ")
    assert "auto" not in problems[0]
    assert "number" in problems[0]
    assert "share" in problems[0]
    assert f"got {value!r}" in problems[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage.cache_gb", 0),
        ("storage.cache_gb", -1),
        ("storage.cache_gb", "much"),
        ("compute.index_memory_gb", 0),
        ("compute.index_memory_gb", "some"),
        ("storage.lease_seconds", 0.5),
        ("storage.lease_seconds", "long"),
        ("storage.endpoint", 9000),
    ],
)
def test_a_wrong_storage_setting_is_told_with_its_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key}: ") as error:
        parse_config(with_value(key, value))
    assert f"got {value!r}" in str(error.value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("storage.end_point", "endpoint"),
        ("storage.cachegb", "cache_gb"),
        ("limits.max_reject", "max_rejects"),
        ("queries.keep_rejected_text", "keep_rejected_texts"),
        ("outcomes.outcomes", "outcome"),
        ("answer_check.references", "reference"),
    ],
)
def test_an_unknown_key_of_the_newer_sections_is_answered_with_the_nearest(
    key: str, near: str
) -> None:
    with pytest.raises(ConfigError, match=f"{key}: unknown key; did you mean '{near}'"):
        parse_config(with_value(key, 1))


@pytest.mark.parametrize("value", ["many", 0, -1, 1.5])
def test_a_wrong_pool_size_is_told_once_by_the_key_that_one_can_type(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(with_value("compute.scorers", value))
    problems = str(error.value).splitlines()[1:]
    assert len(problems) == 1
    assert problems[0].startswith("  - compute.scorers: ")
    assert f"got {value!r}" in problems[0]


def test_stop_words_are_a_list_or_those_of_a_known_language() -> None:
    raw = with_value("index.bm25", {"stopwords": "klingon"})
    with pytest.raises(ConfigError, match="a list of words, or one of none, chinese, danish"):
        parse_config(raw)
    bm25 = parse_config(with_value("index.bm25", {"stopwords": ["der", "die"]})).index.bm25
    assert bm25 is not None
    assert bm25.stopwords == ("der", "die")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("reranker", {"stages": [{"model": "a:b", "deth": 3}]}, "reranker.stages.0.deth"),
        ("labels.negatives", {"runs": [{"run": "a", "deth": 3}]}, "labels.negatives.runs.0.deth"),
        ("cost.prices", {"request": {"deth": 1}}, "cost.prices.request.deth"),
    ],
)
def test_an_unknown_key_in_a_list_or_a_mapping_is_answered_likewise(
    key: str, value: Any, where: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{where}: unknown key.* \(valid keys: "):
        parse_config(with_value(key, value))
