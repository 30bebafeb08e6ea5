"""The reranker that comes with the project: small, whole, and better than retrieval."""

from pathlib import Path

import pytest
import yaml

from rerank_batch.models.location import SAMPLE_FOLDER, ModelName
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from tests.conftest import run_json

MODEL = "cross-encoder:sample"
QUESTION = "Return the largest item of an iterable."
ANSWER = "max With two or more arguments, return the largest argument; default is for empty ones."
OTHERS = [
    "min With two or more arguments, return the smallest argument.",
    "socket.close Close the socket file descriptor; it cannot be used afterwards.",
    "json.dumps Serialise an object to a string, with keys in sorted order if asked for.",
]


def test_it_is_small_and_puts_the_answer_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sum(file.stat().st_size for file in SAMPLE_FOLDER.rglob("*")) < 10e6
    options = ScorerOptions(mode=Mode("torch", "fp32"))
    scorer = load_scorer(ModelName("cross-encoder", "sample"), options)
    (scores,) = scorer.score([QUESTION], [[*OTHERS, ANSWER]]).values
    assert scores.argmax() == len(OTHERS)


@pytest.mark.slow
def test_it_beats_retrieval_on_the_test_queries_of_the_sample(tmp_path: Path) -> None:
    """198 queries that neither it nor its labels have seen."""
    run_json("sample", tmp_path / "sample")
    config = yaml.safe_load(Path("configs/compare.yaml").read_text())
    config["evaluation"]["systems"] = {
        "retrieval": {"reranker": None},
        "cross": {"reranker": {"model": MODEL}},
    }
    config["retrieval"]["depth"] = 20
    file = tmp_path / "compare.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False).replace("./.", f"{tmp_path}/"))
    run_json("build-index", file)
    found = run_json("evaluate", file)
    (gain,) = [
        each
        for each in found["comparison"]
        if (each["system"], each["measure"]) == ("cross", "nDCG@10")
    ]
    assert gain["outcome"] == "better"
