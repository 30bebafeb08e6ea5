"""What the chaos rounds run: a small collection, tiny models, in a folder or in a real bucket."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from tests.support import helpers

QUERIES, BLOCK_ROWS, LEASE_SECONDS = 160, 4, 4
HERE = Path(__file__).parent


@dataclass
class Project:
    """A configuration file, the root it writes to, and the environment its drivers need."""

    config: Path
    root: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "jobs", *map(str, arguments)]

    def run(self, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """A command of ours to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def driver(self, log: Path, *arguments: object, **extra: str) -> subprocess.Popen[bytes]:
        """A driver in the background, everything it says in ``log``."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self.command("rerank", self.config, *arguments),
                env={**self.environment, **extra},
                stdout=out,
                stderr=out,
            )


def write_project(folder: Path, base: Path, root: str, inputs: str, queries: int = QUERIES) -> Path:
    """The configuration ``base`` with a longer log, all of it under ``folder`` or a bucket."""
    from tests.conftest import sentences

    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(base.read_text(encoding="utf-8"))
    asked = [f"{text} {number}" for number, text in enumerate(sentences(queries, seed=7))]
    log = pa.table({"query_id": [f"k{n:04d}" for n in range(queries)], "query": asked})
    pq.write_table(log, folder / "log.parquet")
    for name in ("corpus", "qrels"):
        (folder / f"{name}.parquet").write_bytes(Path(config[name]["path"]).read_bytes())
        config[name]["path"] = f"{inputs}/{name}.parquet"
    config["queries"]["path"] = f"{inputs}/log.parquet"
    config["index"]["path"] = f"{inputs}/index"
    config["root"] = root
    config["job"] = "chaos"
    config["retrieval"] = {"depth": 20}
    # Else every run but the first would find all its scores known, and nothing left to disturb.
    config["cache"] = {"enabled": False}
    config["compute"] = {"block_rows": BLOCK_ROWS, "cpus": 2}
    config["storage"] = {"cache": str(folder / "cache"), "lease_seconds": LEASE_SECONDS}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def content(root: str, run_id: str) -> list[str]:
    """See `tests.support.helpers.content`."""
    return helpers.content(Run.open(open_root(root), run_id))


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without any trace of a store or a cluster."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_", "RERANK_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", **extra}
