"""Cascades and gates."""

from typing import Any

import pytest

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError
from tests.support.configs import with_value


@pytest.mark.parametrize(
    ("reranker", "told"),
    [
        ({"top_k": 5}, "give either model, or stages"),
        ({"model": "a:b", "stages": [{"model": "a:b"}]}, "give either model, or stages"),
        ({"stages": [{"model": "a:b"}], "max_length": 64}, "max_length: with stages"),
        (
            {"stages": [{"model": "a:b", "depth": 10}, {"model": "a:c", "depth": 20}]},
            "must not grow",
        ),
        ({"stages": [{"model": "a:b"}, {"model": "a:c", "depth": 9}]}, "top_k (10) is larger"),
        ({"model": "a:b", "depth": 51}, "depth (51) is larger than retrieval.depth"),
        ({"model": "a:b", "gate": {"signal": "margin@1"}}, "is no signal: margin, margin@k"),
        ({"model": "a:b", "gate": {"max_loss": 0}}, "gate.max_loss"),
    ],
)
def test_a_reranker_that_makes_no_sense_is_refused(reranker: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(with_value("reranker", reranker))
    assert told in str(refused.value)
