"""One real command for every exit code that the help lists, and what it says to do next."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.errors import EXIT_CODES, GuardsFailed
from rerank_batch.storage import open_root
from tests.conftest import run_command
from tests.services.server import KEY, Canned, ServiceServer

HERE = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Place:
    """A configuration with an index and one finished run, which a guard kept unpublished."""

    config: Path
    root: str
    folder: Path
    first: subprocess.CompletedProcess[str]

    def run(
        self, command: str, *arguments: object, config: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = [*command.split(), *([self.config] if config else []), *arguments]
        return subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, words)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def rerank(self, *settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("rerank", "--run-id", "another", *sets(*settings), **environment)


def sets(*settings: str) -> list[str]:
    return [part for each in settings for part in ("--set", each)]


@pytest.fixture(scope="module")
def place(built_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("exit-codes")
    config = folder / "config.yaml"
    root = str(folder / "runs")
    config.write_text(
        built_config.read_text().replace(str(built_config.parent / "runs"), root)
        + "guards: {min_queries: 1000}\n"
    )
    first = run_command("rerank", config, "--run-id", "first")
    return Place(config, root, folder, first)


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    """A reranker that takes fewer documents a call than it is sent, and an LLM that always says
    the same."""
    with ServiceServer("tei", "llm") as server:
        too_many = Canned(413, b'{"error": "batch size 20 > maximum allowed batch size 8"}')
        server.canned = lambda body: too_many if "texts" in body else None
        yield server


def sabotaged(place: Place, code: str) -> dict[str, str]:
    """An environment in which the code is run before the command."""
    folder = place.folder / f"sabotage-{abs(hash(code))}"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    paths = [str(folder), str(HERE), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def success(place, _):
    return place.run("rerank", "--dry-run")


def defect(place, _):
    broken = "import rerank_batch.runs\nrerank_batch.runs.list_runs = lambda *_: 1 / 0\n"
    return place.run("runs list", place.root, config=False, **sabotaged(place, broken))


def wrong_key(place, _):
    return place.run("rerank", *sets("reranker.topk=3"))


def no_file(place, _):
    return place.run("rerank", *sets("queries.path=nowhere.parquet"))


def other_index(place, _):
    return place.run("rerank", *sets("index.shards=2"))


def taken_id(place, _):
    return place.run("rerank", "--run-id", "first")


def no_folder(place, _):
    file = place.folder / "file"
    file.touch()
    return place.rerank(f"root={file}/runs")


def no_model(place, _):
    return place.rerank("reranker.model=magic:x")


def no_cluster(place, _):
    done = place.rerank("compute.connect_seconds=1", RAY_ADDRESS="127.0.0.1:9")
    assert open_root(place.root).folders("runs/") == ["first"], "no run is begun"
    return done


def other_settings(place, _):
    return place.run("rerank", "--resume", "first", *sets("retrieval.depth=10"))


def damaged(place, _):
    copy = place.folder / "damaged"
    shutil.copytree(place.root, copy)
    file = next((copy / "runs/first/data").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    return place.run("runs verify", copy, "first", config=False)


def too_many_rejects(place, _):
    return place.rerank("limits.max_rejects=0")


def refused(place, service):
    return place.rerank(
        "reranker={model: 'tei:any', top_k: 5}",
        "queries.head.max_queries=4",
        TEI_BASE_URL=service.url,
        TEI_API_KEY=KEY,
    )


def too_dear(place, service):
    reference = place.folder / "answers.parquet"
    pq.write_table(pa.table({"query_id": ["q00", "q01"], "answer": ["x", "y"]}), reference)
    return place.run(
        "evaluate",
        "--run",
        "first",
        *sets(
            f"answer_check={{model: 'llm:any', reference: {reference}}}",
            "cost={prices: {llm: {request: 1.0}}, cap: 0.5}",
        ),
        OPENAI_BASE_URL=f"{service.url}/v1",
        OPENAI_API_KEY=KEY,
    )


def not_good_enough(place, _):
    return place.run("evaluate", "--run", "first", "--fail-under", "nDCG@10>=0.99")


def leak(place, _):
    """Each query in a split of its own draw, though many have words in common."""
    broken = (
        "from rerank_batch.labels import splits\n"
        "splits._components = lambda queries, *_: list(range(len(queries)))\n"
    )
    return place.run(
        "make-labels",
        "--run",
        "first",
        "--out",
        place.folder / "labels",
        *sets("labels.split={dev: 0.3, test: 0.3, similarity: 0.05}"),
        **sabotaged(place, broken),
    )


def kept_back(place, _):
    return place.first


COMMANDS: dict[int, tuple[Callable[..., subprocess.CompletedProcess[str]], tuple[str, ...]]] = {
    0: (success, ()),
    1: (defect, ("ZeroDivisionError",)),
    2: (wrong_key, ("reranker.topk", "did you mean 'top_k'?")),
    3: (no_file, ("queries: nothing at nowhere.parquet; name a file or folder",)),
    4: (other_index, ("shards (index: 3, now: 2)", "rerank-batch build-index")),
    5: (taken_id, ("run first exists", "Choose another --run-id")),
    6: (no_folder, ("cannot write under", "file/runs", "choose another folder")),
    7: (no_model, ("unknown model family 'magic'", "choose one of cross-encoder:…")),
    8: (no_cluster, ("the Ray cluster at 127.0.0.1:9 cannot be reached", "RAY_ADDRESS")),
    9: (other_settings, ("retrieval.depth was 20, is 10", "nothing was written")),
    10: (damaged, ("run first is damaged", "has another sha256", "make it again")),
    11: (too_many_rejects, ("limits.max_rejects (0)", "--set limits.max_rejects=")),
    12: (
        refused,
        (
            "tei at 127.0.0.1:",
            "answered POST /rerank with HTTP 413: batch size 20 > maximum allowed batch size 8",
            "lower reranker.service.documents_per_call",
            "--resume another",
        ),
    ),
    13: (too_dear, ("cost.cap is 0.5", "a higher --set")),
    14: (not_good_enough, ("not nDCG@10 >= 0.99", "Its report says where: ")),
    15: (leak, ("nearly the same query", "Change labels.split")),
    16: (kept_back, ("min_queries", "runs publish")),
}


def test_every_exit_code_has_its_command():
    assert COMMANDS.keys() == EXIT_CODES.keys()


def test_the_page_lists_them_all():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (HERE / "README.md").read_text("utf-8"), re.M)
    assert {int(code): meaning for code, meaning in rows}.items() >= EXIT_CODES.items()


@pytest.mark.parametrize("code", COMMANDS, ids=lambda code: f"{code}-{COMMANDS[code][0].__name__}")
def test_a_command_ends_with_its_code_and_says_what_to_do(code, place, service):
    command, said = COMMANDS[code]
    done = command(place, service)
    assert done.returncode == code, done.stderr[-3000:]
    stderr = " ".join(done.stderr.split())
    print(stderr)
    for words in said:
        assert words in stderr
    assert ("Traceback" in done.stderr) == (code == 1)
    if code > 1:
        assert "error: " in stderr
        assert "Traceback" not in done.stdout
    assert code != GuardsFailed.exit_code or "40 from 63 log rows" in done.stdout
