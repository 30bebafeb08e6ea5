"""What the sections allow, and what is checked across them."""

import pytest
from pydantic import ValidationError

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError
from tests.support.configs import BASE, with_value


def test_a_configuration_cannot_be_changed() -> None:
    config = parse_config(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        config.job = "other"
    with pytest.raises(ValidationError, match="frozen"):
        config.retrieval.depth = 3


def test_no_more_results_than_candidates() -> None:
    raw = with_value("reranker.top_k", 51)
    with pytest.raises(ConfigError, match=r"top_k \(51\) is larger than retrieval.depth \(50\)"):
        parse_config(raw)
    raw["reranker"]["top_k"] = 50
    assert parse_config(raw).reranker is not None


@pytest.mark.parametrize("job", ["", "Nightly", "a b", "../x", "a/b", "-a", "é", "a" * 65, "a\n"])
def test_a_job_name_that_could_not_be_a_folder_name_everywhere_is_refused(job: str) -> None:
    with pytest.raises(ConfigError, match="is not a job name"):
        parse_config(with_value("job", job))


@pytest.mark.parametrize("job", ["a", "nightly-2026_01", "0", "a" * 64])
def test_plain_job_names_are_fine(job: str) -> None:
    assert parse_config(with_value("job", job)).job == job


@pytest.mark.parametrize("value", [0.2, 0, 5, 0.0, 0.999, 1])
def test_a_limit_is_a_number_of_rows_or_a_share_of_them(value: float) -> None:
    limit = parse_config(with_value("limits.max_rejects", value)).limits.max_rejects
    assert limit == value
    assert type(limit) is type(value)


def test_a_segment_is_named_once() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.segments: locale stands twice"):
        parse_config(with_value("evaluation.segments", ["locale", "date", "locale"]))


def test_the_price_of_a_model_goes_before_that_of_its_family() -> None:
    prices = {"cohere": {"search_unit": 2}, "cohere:small": {"search_unit": 1}}
    cost = parse_config(with_value("cost", {"prices": prices})).cost
    found = [cost.price(name) for name in ("cohere:small", "cohere:large", "voyage:x")]
    assert [price and price.search_unit for price in found] == [1, 2, None]
