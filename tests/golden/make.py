"""How the golden files were made: ``python -m tests.golden.make OUT_FOLDER``.

Not for bringing them up to date: they are what an earlier version wrote, and a later one has to
read them. A new form of files gets a folder of its own beside these.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.integration.recorded.project import HYBRID, write_project

TREE = Path(__file__).resolve().parents[2]

_SMALL = "--set retrieval.depth=8 --set compute.block_rows=8 "
_COMMANDS = (
    f"build-index config.yaml {_SMALL}",
    f"build-index config.yaml {_SMALL} --set index.path=index-2 --set index.bm25={{}}",
    # Else a shard of so few documents is written anew, and none would be masked.
    f"build-index config.yaml {HYBRID} {_SMALL} --set index.compact_at=0.6",
    f"rerank config.yaml --run-id plain {_SMALL}",
    f"evaluate compare.yaml --run-id systems {_SMALL} --set retrieval.depth=15",
    f"make-labels config.yaml --run plain --run-id labelled --out labels {_SMALL} "
    "--set 'labels.split={dev: 0.2, test: 0.2}' --set 'labels.formats=[scores]'",
    f"rerank config.yaml --run-id held {_SMALL} --set guards.min_queries=1000 --set reranker=null",
)
_KEPT = ("config.yaml", "compare.yaml", "store", "index", "index-2", "labels")
_KEPT_INPUTS = ("log.parquet", "qrels.parquet", "other.trec")

# Nobody reads these any more, or other tests do; of the run that a guard held back the state is
# what matters.
_LEFT_OUT = (
    "store/runs/*/report",
    "store/runs/held/data",
    "store/runs/held/plan",
    "store/runs/systems/plan",
    "store/runs/labelled/plan",
    "store/scores/*/segments/*-plain-*",
    "store/runs/held/rejects",
    "labels/README.md",
    "labels/scores",
)


def _make_smaller(data: Path) -> None:
    """Twelve queries and a few bad rows over some of the documents."""
    corpus = pq.read_table(data / "corpus.parquet")
    judged = pq.read_table(data / "qrels.parquet").slice(0, 18)
    wanted = [f"d{n:03d}" for n in range(120) if n < 30 or n % 7 == 0]
    corpus = corpus.filter(pc.is_in(corpus["doc_id"], value_set=pa.array(wanted)))
    pq.write_table(corpus, data / "corpus.parquet")
    changed = corpus.to_pylist()[4:]
    for row in changed[:4]:
        row["text"] = f"summer garden {row['text']}"
    changed += [{"doc_id": f"n{n}", "title": "new", "text": f"river stone {n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(changed), data / "corpus-2.parquet")
    pq.write_table(judged, data / "qrels.parquet")
    log = pq.read_table(data / "log.parquet")
    rows = [*range(12), *range(40, 46), *range(60, log.num_rows)]
    pq.write_table(log.take(rows), data / "log.parquet")
    lists = (data / "other.trec").read_text("utf-8").splitlines(keepends=True)
    (data / "other.trec").write_text("".join(lists[:60]), "utf-8")


def make(out: Path) -> None:
    """Run the commands in a folder for the time being and keep what they left."""
    environment = {**os.environ, "PYTHONPATH": str(TREE), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        write_project(project)
        _make_smaller(project / "data")
        for line in _COMMANDS:
            command = [sys.executable, "-m", "jobs", *shlex.split(line)]
            done = subprocess.run(command, cwd=project, env=environment, check=False)
            if done.returncode and "--run-id held" not in line:
                raise SystemExit(f"{line}: exit code {done.returncode}")
        keep(project, out)


def keep(project: Path, out: Path) -> None:
    """Copy what the tests read, without who and where it was made."""
    (out / "data").mkdir(parents=True)
    for each in _KEPT:
        source = project / each
        if source.is_dir():
            shutil.copytree(source, out / each, ignore=shutil.ignore_patterns("*.lock"))
        else:
            shutil.copy(source, out / each)
    for each in _KEPT_INPUTS:
        shutil.copy(project / "data" / each, out / "data" / each)
    for pattern in _LEFT_OUT:
        for found in out.glob(pattern):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    for file in (*out.glob("store/runs/*/lease.json"), *out.glob("store/runs/*/epochs/*.json")):
        told = json.loads(file.read_text("utf-8"))
        told["owner"] |= {"host": "maker", "pid": 7, "machine": "maker/boot/pid:[1]"}
        file.write_text(json.dumps(told, indent=1), "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
