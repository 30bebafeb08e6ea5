"""`evaluate` over several systems: one retrieval and one reading of each pair serve all of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rerank_batch.config import load_config
from rerank_batch.errors import ConfigError
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.workflows.inputs import read_comparison
from tests.conftest import run_command, run_json

MEASURES = ["nDCG@10", "RR@10", "R@20"]


def with_systems(config: Path, folder: Path, systems: dict[str, Any], **sections: Any) -> Path:
    raw = yaml.safe_load(config.read_text())
    raw |= {"root": str(folder / "runs"), "cache": {"enabled": True}, **sections}
    raw["compute"]["block_rows"] = 30
    raw["evaluation"] = {"measures": MEASURES, "systems": systems}
    file = folder / "systems.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def compared(
    built_config: Path, tiny_bi_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A comparison, and beside it the ordinary runs of the systems that it compares."""
    folder = tmp_path_factory.mktemp("systems")
    late = {"model": f"late-interaction:{tiny_bi_encoder}", "runtime": "torch"}
    cross = yaml.safe_load(built_config.read_text())["reranker"]
    systems = {
        "retrieval": {"reranker": None},
        "copy": {"reranker": None},
        "cross": {"reranker": cross},
        "shallow": {"retrieval": {"depth": 8}, "reranker": {**cross, "top_k": 5}},
        "cascade": {
            "reranker": {"top_k": 5, "stages": [{**late, "depth": 15}, _stage(cross, depth=6)]}
        },
    }
    config = with_systems(built_config, folder, systems)
    return {
        "folder": folder,
        "systems": systems,
        "config": config,
        "summary": run_json("evaluate", config),
    }


def _stage(reranker: dict[str, Any], depth: int) -> dict[str, Any]:
    return {"model": reranker["model"], "runtime": "torch", "depth": depth}


def test_copies_are_undecided_and_everything_is_told(compared) -> None:
    summary = compared["summary"]
    assert list(summary["metrics"]) == list(compared["systems"])
    assert summary["metrics"]["copy"] == summary["metrics"]["retrieval"]
    rows = {(row["system"], row["measure"]): row for row in summary["comparison"]}
    assert set(rows) == {(s, m) for s in list(compared["systems"])[1:] for m in MEASURES}
    assert rows["copy", "nDCG@10"]["outcome"] == "undecided"
    assert "unchanged" in rows["copy", "nDCG@10"]["doubt"]
    page = Path(summary["report"]).read_text()
    assert "Against retrieval" in page
    assert "cascade" in page
    values = pq.read_table(Path(summary["report"]).with_name("metrics.parquet"))
    assert values.num_rows == summary["judged"] * 5 * len(MEASURES)


def test_every_pair_was_read_once(compared) -> None:
    """30 judged queries: 20 candidates by the cross-encoder, 15 by late interaction; what the
    cascade and the shallow one want was read for the deep one. Before, it is not known that the
    cascade's six are among the twenty."""
    summary = compared["summary"]
    plan = run_json("evaluate", compared["folder"] / "systems.yaml", "--dry-run")
    assert plan["pairs"] == 30 * (20 + 15 + 6)
    assert summary["judged"] == 30
    assert summary["pairs"] == 30 * (20 + 15)


@pytest.mark.slow
def test_each_system_is_what_its_own_run_gives(compared, built_config) -> None:
    for name, system in compared["systems"].items():
        override = [f"reranker={json.dumps(system['reranker'])}"]
        override += [f"retrieval={json.dumps(system.get('retrieval', {'depth': 20}))}"]
        override += [f"root={compared['folder'] / name}"]
        options = [part for each in override for part in ("--set", each)]
        alone = run_json("evaluate", built_config, *options)
        column = "reranked" if system["reranker"] else "retrieval"
        found = compared["summary"]["metrics"][name]
        assert found == pytest.approx(alone["metrics"][column], abs=1e-12), name


@pytest.mark.slow
def test_a_system_that_is_added_later_scores_only_what_is_new(compared, built_config) -> None:
    """And lists of another run, and of a TREC file, are compared without being computed."""
    folder, systems = compared["folder"], compared["systems"]
    before = Run.open(open_root(str(folder / "runs")), compared["summary"]["run_id"])
    trec = folder / "one.trec"
    trec.write_text("q00 Q0 d000 1 2.0 me\nq01 Q0 d014 1 1.5 me\n")
    more = {
        **{name: systems[name] for name in ("retrieval", "cross")},
        "deeper": {**systems["cross"], "retrieval": {"depth": 30}},
        "before": {"run": before.run_id, "system": "cross"},
        "file": {"trec": str(trec)},
    }
    summary = run_json("evaluate", with_systems(built_config, folder, more))
    assert summary["pairs"] == 30 * 30
    assert summary["cache"]["known_pairs"] == 30 * 20
    assert summary["cache"]["scored_pairs"] == 30 * 10
    assert summary["metrics"]["before"] == summary["metrics"]["cross"]
    assert summary["missing"] == {"before": 0, "file": 28}
    assert summary["metrics"]["file"]["RR@10"] == pytest.approx(2 / 30)

    out = folder / "exported.trec"
    run_json(
        "runs", "export", folder / "runs", summary["run_id"], "--system", "deeper", "--out", out
    )
    assert len(out.read_text().splitlines()) == 30 * 30

    again = run_json("evaluate", folder / "systems.yaml", "--run", summary["run_id"])
    assert again["metrics"] == summary["metrics"]
    gone = with_systems(built_config, folder, {**more, "another": {"reranker": None}})
    refused = run_command("evaluate", gone, "--run", summary["run_id"])
    assert refused.returncode == ConfigError.exit_code
    assert "does not hold the systems another" in refused.stderr


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"a": {"reranker": None}}, "one system has none to be compared with"),
        ({"a": {}, "b": {"reranker": None, "run": "x"}}, "give settings of a system that is"),
        ({"a": {}, "b": {"retrieval": {"dept": 3}}}, r"b: retrieval.dept: unknown key; did you"),
        ({"a": {}, "b": {"retrieval": {"depth": 3}}}, r"reranker.top_k \(5\) is larger than"),
        ({"a": {}, "b\n": {}}, "is no name of a system"),
        ({"a": {}, "b": {"system": "x"}}, "give run with it"),
        ({"a": {"run": "x"}, "b": {"trec": "y"}}, "at least one has to be computed"),
        ({"a": {}, "b": {"depth": 3}}, r"systems.b.depth: unknown key .valid keys: index, retr"),
    ],
)
def test_what_is_no_comparison_is_refused(config_file, tmp_path, systems, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_comparison(load_config(with_systems(config_file, tmp_path, systems)))
