"""Paths as people write them: ~ and variables, in every path of a configuration and a command."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from jobs.__main__ import app
from rerank_batch import config as configuration
from rerank_batch.config import Config, digest, parse_config, results_settings
from rerank_batch.config.node_cache import node_cache
from rerank_batch.config.paths import expanded, expanded_model
from rerank_batch.errors import ConfigError, StorageError
from rerank_batch.models.location import _cache
from rerank_batch.training.config import FinetuneConfig

BASE: dict[str, Any] = {
    "corpus": {"path": "corpus.parquet"},
    "queries": {"path": "log"},
    "index": {"path": ".index", "encoder": "sentence-transformers:package:minilm"},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOTHING", raising=False)
    return str(tmp_path)


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user: no HOME, and no entry in the list of users."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~", "{home}"),
        ("~/runs", "{home}/runs"),
        ("~root/x", "/root/x"),
        ("$DATA/log", "/data/log"),
        ("${DATA}log", "/datalog"),
        ("a/$DATA/${DATA}", "a//data//data"),
        ("s3://b/$DATA/x", "s3://b//data/x"),
        ("a~b", "a~b"),
        ("./~/x", "./~/x"),
        ("costs-5$", "costs-5$"),
        ("day={yesterday:%Y}/x", "day={yesterday:%Y}/x"),
    ],
)
def test_a_path_means_what_it_means_to_a_shell(home: str, written: str, meant: str) -> None:
    assert expanded(written) == meant.replace("{home}", home)


def test_a_home_that_is_the_root_gives_no_double_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert expanded("~/runs") == "/runs"
    assert expanded("~") == "/"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("$NOTHING/x", "$NOTHING is not set"),
        ("${NOTHING}", "${NOTHING} is not set"),
        ("${}", "${} is not set"),
        ("$EMPTY/x", "$EMPTY is empty"),
        ("$BYTES/x", "$BYTES holds bytes that are not UTF-8"),
        ("~nobody-of-that-name/x", "write ./~nobody-of-that-name"),
    ],
)
def test_what_cannot_be_meant_is_named(
    home: str, written: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("BYTES", "caf\udce9")
    with pytest.raises(ConfigError) as error:
        parse_config({**BASE, "root": written})
    assert "root: " in str(error.value)
    assert said in str(error.value)


PATHS = [
    "root",
    "collection",
    "corpus.path",
    "queries.path",
    "qrels.path",
    "clicks.path",
    "index.path",
    "retrieval.exclude.path",
    "outcomes.path",
    "storage.endpoint",
]


def _raw(key: str, value: str) -> dict[str, Any]:
    raw: dict[str, Any] = {name: dict(section) for name, section in BASE.items()}
    *parents, leaf = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return raw


@pytest.mark.parametrize("key", PATHS)
def test_every_path_of_a_configuration_is_expanded(home: str, key: str) -> None:
    found: Any = parse_config(_raw(key, "~/$DATA/x"))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == f"{home}//data/x"


def test_paths_that_stand_deeper_are_expanded_too(home: str) -> None:
    config = parse_config(
        {
            **BASE,
            "retrieval": {"sources": ["given"], "given": {"trec": "~/run.trec"}},
            "reranker": {"stages": [{"model": "cross-encoder:~/m"}, {"model": "tei:$DATA"}]},
            "evaluation": {
                "systems": {
                    "a": {"index": {"path": "~/other"}},
                    "b": {"trec": "$DATA/b.trec"},
                }
            },
            "labels": {"negatives": {"runs": [{"run": "r", "root": "~/runs"}]}},
            "storage": {"cache": "$DATA/cache"},
            "notify": {"command": ["~/notify", "$DATA", "~"]},
            "answer_check": {"model": "llm:x", "reference": "~/answers.parquet"},
        }
    )
    assert config.retrieval.given is not None
    assert config.retrieval.given.trec == f"{home}/run.trec"
    assert config.reranker is not None
    assert [each.model for each in config.reranker.stages] == [
        f"cross-encoder:{home}/m",
        "tei:/data",
    ]
    systems = config.evaluation.systems
    assert config.computing(systems["a"]).index.path == f"{home}/other"
    assert systems["b"].trec == "/data/b.trec"
    assert config.labels.negatives.runs[0].root == f"{home}/runs"
    assert config.storage.cache == "/data/cache"
    assert config.notify.command == (f"{home}/notify", "$DATA", "~")
    assert config.answer_check is not None
    assert config.answer_check.reference == f"{home}/answers.parquet"
    tuning = FinetuneConfig.model_validate({"model": "cross-encoder:~/start"})
    assert tuning.model == f"cross-encoder:{home}/start"


def test_no_path_of_the_configuration_is_forgotten() -> None:
    """A text that is called like a path or a model has a type that expands it."""
    names = {"path", "root", "collection", "trec", "parquet", "rubric", "reference", "cache"}
    names |= {"model", "encoder", "judge"}
    found = []
    for section in (*vars(configuration).values(), FinetuneConfig):
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        for name in names & section.model_fields.keys():
            kind = f"{section.model_fields[name].annotation} {section.model_fields[name].metadata}"
            if "Config" not in kind and "Literal" not in kind:
                assert "expanded" in kind, f"{section.__name__}.{name}"
                found.append(name)
    assert set(found) == names


def test_a_run_keeps_its_identity_however_its_paths_are_written(home: str) -> None:
    def identity(config: Config) -> str:
        return digest(results_settings(config))

    plain = parse_config(_raw("root", f"{home}/runs"))
    assert identity(plain) == identity(parse_config(_raw("root", "~/runs")))
    again = parse_config(plain.model_dump(mode="json", exclude_unset=True))
    assert again == plain, "what a run's spec.json holds can be read again"


def test_a_model_s_location_is_a_path(home: str) -> None:
    assert expanded_model("cross-encoder:~/m") == f"cross-encoder:{home}/m"
    assert expanded_model("cross-encoder:package:minilm") == "cross-encoder:package:minilm"


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "list", "~/nowhere"],
        ["runs", "list", "$HOME/nowhere"],
    ],
)
def test_an_argument_is_a_path_too(home: str, command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert f"no runs under {home}/nowhere" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "command",
    [
        ["rerank", "$NOTHING/x.yaml"],
        ["lookup", "$NOTHING", "alpha"],
        ["sample", "$NOTHING/out"],
        ["runs", "export", "root", "run", "--out", "$NOTHING/x"],
        ["finetune", "x.yaml", "--labels", "$NOTHING", "--out", "x"],
    ],
)
def test_an_argument_with_a_variable_that_is_not_set_is_refused(
    home: str, command: list[str]
) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ConfigError.exit_code
    assert "$NOTHING is not set" in " ".join(result.output.replace("│", " ").split())


# --- nobody's home -----------------------------------------------------------------------------


def test_without_a_home_caches_are_in_a_private_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rerank_batch.config.paths.home", lambda: None)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = tmp_path / f"rerank_batch-{os.getuid()}"
    storage = parse_config({**BASE, "storage": {"cache": "~/.cache/rerank_batch"}}).storage
    assert node_cache(storage).folder == folder / ".cache/rerank_batch"
    assert node_cache(parse_config(BASE).storage).folder == folder / ".cache/rerank_batch"
    assert _cache() == folder / ".cache/rerank_batch/models"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match="HOME is not set"):
        parse_config({**BASE, "root": "~/runs"})


def test_a_temporary_folder_of_somebody_else_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rerank_batch.config.paths.home", lambda: None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"rerank_batch-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is not this user's; set storage"):
        node_cache(parse_config(BASE).storage)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from rerank_batch.workflows.runs import _user

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    nobody(monkeypatch)
    assert _user() == "user 987654"
    with pytest.raises(ConfigError, match="HOME is not set"):
        parse_config({**BASE, "root": "~/runs"})
