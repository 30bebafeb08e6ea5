"""spec.json: today's keys, those of older and newer versions, and what is read from them."""

import json
from dataclasses import replace

import pytest

from rerank_batch.errors import StorageError
from rerank_batch.runs import RunSpec
from tests.support.helpers import spec

OF_RERANK = [
    *("job", "created", "fingerprint", "made_of", "generations", "config", "systems"),
    *("versions", "planned", "block_rows", "blocks", "protocol", "nonce"),
]


def whole() -> RunSpec:
    return replace(
        spec(),
        fingerprint="f",
        generations={"file:///index": "g1"},
        systems=[],
        versions={"ray": "2.60"},
        blocks=5,
        protocol=4,
        nonce="n",
    )


def test_the_keys_are_those_that_readers_know() -> None:
    assert list(whole().to_json()) == OF_RERANK
    labels = replace(whole(), command="make-labels", generations={}, systems=None)
    keys = set(OF_RERANK) - {"generations", "systems"} | {"command"}
    assert set(labels.to_json()) == keys


def test_a_spec_comes_back_with_the_keys_of_other_versions() -> None:
    document = {**whole().to_json(), "of_a_later_version": [1]}
    back = RunSpec.from_json(json.dumps(document).encode(), "spec.json")
    assert back.to_json() == document
    assert back.more == {"of_a_later_version": [1]}


def test_a_spec_of_an_older_version_has_defaults() -> None:
    document = {**spec().to_json(), "protocol": 4}
    back = RunSpec.from_json(json.dumps(document).encode(), "spec.json")
    assert (back.command, back.systems, back.generations) == ("rerank", None, {})
    assert back.to_json() == document


@pytest.mark.parametrize("key", ["job", "created", "made_of", "planned", "block_rows", "protocol"])
def test_a_spec_that_lacks_a_key_is_damaged(key: str) -> None:
    document = whole().to_json()
    del document[key]
    with pytest.raises(StorageError, match=f"spec.json is damaged: it lacks {key}"):
        RunSpec.from_json(json.dumps(document).encode(), "spec.json")


def test_the_cascade_is_the_stages_or_the_one_model() -> None:
    one = {"model": "a:b", "stages": []}
    two = {"model": None, "stages": [{"model": "a:b"}, {"model": "a:c"}]}
    for reranker, models in ((None, []), (one, ["a:b"]), (two, ["a:b", "a:c"])):
        made = replace(spec(), config={"reranker": reranker})
        assert [stage["model"] for stage in made.cascade] == models


def test_compared_systems_have_the_settings_of_their_names() -> None:
    settings = [{"cascade": [], "depth": 5}, {"cascade": [{}], "depth": 9}]
    made = replace(spec(settings={"systems": settings}), systems=["a", "b"])
    assert made.compared == {"a": settings[0], "b": settings[1]}
    assert spec().compared == {}
