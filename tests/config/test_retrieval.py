"""Sources of candidates."""

from typing import Any

import pytest

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError
from tests.support.configs import with_value


@pytest.mark.parametrize(
    ("retrieval", "told"),
    [
        ({"sources": ["bm25"]}, "retrieval.sources: bm25 needs index.bm25"),
        ({"sources": []}, "retrieval.sources: Tuple should have at least 1 item"),
        ({"sources": ["sparse"]}, "Input should be 'dense', 'bm25' or 'given' (got 'sparse')"),
        ({"sources": ["dense", "dense"]}, "a source stands twice: dense, dense"),
        ({"sources": ["given"]}, "needs retrieval.given, its lists"),
        ({"given": {}}, "retrieval.given: give either trec or parquet"),
        ({"given": {"trec": "x", "id": "y"}}, "id and documents are columns of parquet"),
        ({"fusion": {"weights": {"dense": 0}}}, "every source has the weight 0"),
        ({"fusion": {"method": "weighted", "k": 10}}, "k is no setting of method: weighted"),
        ({"fusion": {"normalise": "z"}}, "normalise is no setting of method: rrf"),
        ({"fusion": {"weight": {}}}, "retrieval.fusion.weight: unknown key; did you mean"),
        ({"depths": {"bm25": 0}}, "retrieval.depths.bm25"),
    ],
)
def test_sources_that_make_no_sense_are_refused(retrieval: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(with_value("retrieval", retrieval))
    assert told in str(refused.value)
