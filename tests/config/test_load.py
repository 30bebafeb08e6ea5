"""How a configuration is read: YAML, overrides, and what is no YAML."""

from pathlib import Path

import pytest
import yaml

from rerank_batch.config import OF_COLLECTION, load_config
from rerank_batch.errors import ConfigError
from tests.support.configs import BASE, load

CONFIGS = Path(__file__).parents[2] / "configs"


JOBS = sorted(file for file in CONFIGS.glob("*.yaml") if not file.stem.startswith("finetune"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_every_configuration_that_is_shipped_is_valid(file: Path) -> None:
    config = load_config(file)
    assert (config.corpus.path == OF_COLLECTION) == (config.collection is not None)


@pytest.mark.parametrize(
    "text",
    ["job: one\njob: two\n", "corpus:\n  path: a\n  path: b\n", "corpus: {path: a, path: b}"],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"stands twice(.|\n)*line \d"):
        load(tmp_path, text=text)


@pytest.mark.parametrize("text", ["a: [1", "\t- x", "? [a, b]\n: 1\n", "? {a: b}\n: 1\n"])
def test_what_is_not_yaml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        load(tmp_path, text=text)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_holds_no_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="mapping of sections"):
        load(tmp_path, text=text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_yaml_tag_runs_no_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(ConfigError):
        load(tmp_path, text=f"job: !!python/object/apply:os.mkdir ['{canary}']")
    assert not canary.exists()


def test_overrides_take_yaml_values_and_win_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "retrieval.depth=30",
        "job=weekly",
        "queries.dedupe=false",
        "evaluation.measures=[nDCG@5, AP]",
        'queries.filter=[[date, ">=", 2026-01-02]]',
        "corpus.path=a=b.parquet",
        "reranker=null",
    )
    assert config.retrieval.depth == 30
    assert config.job == "weekly"
    assert config.queries is not None
    assert config.queries.dedupe is False
    assert config.queries.filter[0][:2] == ("date", ">=")
    assert config.evaluation.measures == ("nDCG@5", "AP")
    assert config.corpus.path == "a=b.parquet"
    assert config.reranker is None


def test_the_last_override_of_a_key_wins(tmp_path: Path) -> None:
    assert load(tmp_path, "retrieval.depth=30", "retrieval.depth=40").retrieval.depth == 40


def test_an_override_creates_the_section_it_needs(tmp_path: Path) -> None:
    assert "compute" not in BASE
    assert load(tmp_path, "compute.scorers=3").compute.scorers == 3


def test_an_override_fills_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    text = yaml.safe_dump({**BASE, "qrels": None})
    config = load(tmp_path, "qrels.path=judged.tsv", text=text)
    assert config.qrels is not None
    assert config.qrels.path == "judged.tsv"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("retrieval.depth", "dotted.key=value"),
        ("=3", "dotted.key=value"),
        ("job.name=x", "'job' is a value"),
        ("evaluation.measures=[nDCG@5", "not a YAML value"),
        ("compute={cpus: 1, cpus: 2}", "not a YAML value"),
        ("retrieval.dept=3", "did you mean 'depth'"),
        ("retrieval.depth=lots", "got 'lots'"),
    ],
)
def test_a_bad_override_says_what_is_wrong_with_it(
    tmp_path: Path, override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, override)
    assert complaint in str(error.value)
