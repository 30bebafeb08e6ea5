"""Which family reads which setting: the others refuse it."""

from typing import Any

import pytest

from rerank_batch.config import Config, ScorerSettings, ServiceConfig, parse_config
from rerank_batch.config.scorer import SETTINGS_OF, families_with
from rerank_batch.errors import ConfigError
from rerank_batch.rerankers import FAMILIES
from tests.support.configs import with_value

VALUES: dict[str, Any] = {
    "max_length": 64,
    "precision": "bf16",
    "allow": ["int8"],
    "runtime": "torch",
    "batch_tokens": 64,
    "truncation": "only_second",
    "layer": 9,
    "instruction": "find the answer",
    "max_chars": 800,
    "method": "grade",
    "window": 15,
    "step": 5,
    "service.requests_per_minute": 60,
    "service.tokens_per_minute": 600,
    "service.documents_per_call": 10,
    "service.concurrency": 4,
    "service.timeout_seconds": 5.0,
    "service.attempts": 2,
}
"""Of every setting a value that is not the default."""


def with_setting(family: str, setting: str) -> dict[str, Any]:
    section, _, key = setting.rpartition(".")
    value = {section: {key: VALUES[setting]}} if section else {key: VALUES[setting]}
    return {"model": f"{family}:a", **value}


def refused(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_config(raw)
    return str(error.value).splitlines()[1:]


def test_the_table_has_every_family_and_every_setting() -> None:
    assert list(SETTINGS_OF) == list(FAMILIES)
    settings = {*ScorerSettings.model_fields, *(f"service.{n}" for n in ServiceConfig.model_fields)}
    assert set(VALUES) == settings - {"depth", "service"} == set().union(*SETTINGS_OF.values())


@pytest.mark.parametrize("setting", VALUES)
@pytest.mark.parametrize("family", SETTINGS_OF)
def test_a_setting_is_read_by_the_family_or_refused_with_those_that_read_it(
    family: str, setting: str
) -> None:
    raw = with_value("reranker", with_setting(family, setting))
    if setting in SETTINGS_OF[family]:
        assert isinstance(parse_config(raw), Config)
    else:
        readers = ", ".join(families_with(setting))
        expected = f"  - reranker.{setting}: not read by {family}; families that read it: {readers}"
        assert refused(raw) == [expected]


@pytest.mark.parametrize(("name", "family"), [(n, f) for n, f in FAMILIES.items()])
def test_only_services_are_called_and_only_weights_have_a_length(name: str, family: Any) -> None:
    settings = SETTINGS_OF[name]
    assert ("service.attempts" in settings) == ("max_chars" in settings) == family.service
    assert ("max_length" in settings) == (not family.service)
    assert ("method" in settings) == family.prompted


@pytest.mark.parametrize("family", SETTINGS_OF)
def test_a_setting_that_is_left_at_its_default_is_read_by_all(family: str) -> None:
    usual = ScorerSettings().model_dump(mode="json")
    raw = with_value("reranker", {"model": f"{family}:a", **usual, "depth": 20})
    assert isinstance(parse_config(raw), Config)


def test_each_stage_and_each_system_has_a_family_of_its_own() -> None:
    stages = [with_setting("cross-encoder", "max_length"), with_setting("cohere", "max_length")]
    (problem,) = refused(with_value("reranker", {"stages": stages}))
    assert problem.startswith("  - reranker.stages.1.max_length: not read by cohere; ")
    systems = {"a": {"reranker": with_setting("tei", "layer")}, "b": {"reranker": None}}
    (problem,) = refused(with_value("evaluation", {"systems": systems}))
    assert problem.startswith("  - evaluation.systems.a.reranker.layer: not read by tei; ")


def test_every_setting_that_is_not_read_is_named_at_once() -> None:
    reranker = {**with_setting("jina", "layer"), **with_setting("jina", "window")}
    assert len(refused(with_value("reranker", reranker))) == 2


def test_a_family_that_nobody_knows_is_refused_where_models_are_looked_up() -> None:
    parse_config(with_value("reranker", with_setting("magic", "layer")))
