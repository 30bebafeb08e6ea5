"""Nights at size on this machine, and what they say of nights of any size on any number of nodes.

The collection is made of the configuration's own by recombination and read by light models of
random weights, so that everything but the models costs what it does in a real night. Four sizes are
measured, each four times the one before: lines through the two in the middle are checked on the
smallest and on the largest.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from rich.table import Table

from jobs.console import Console
from rerank_batch.benchmarks.overhead import run_job
from rerank_batch.benchmarks.projection import Law, Models, Night, Nodes, project
from rerank_batch.benchmarks.recombination import Source, write_documents, write_log, write_models
from rerank_batch.config import Config
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.data.corpus import read_corpus
from rerank_batch.data.plan import make_plan
from rerank_batch.errors import ConfigError

_SHARES = (64, 16, 4, 1)
_NEW_QUERIES = 0.2
_CHANGED_EACH = 100
_ROWS = 50_000
_GATE = {"signal": "margin", "threshold": 0.004}
_LARGE = ((1_000_000, 100_000), (10_000_000, 1_000_000), (100_000_000, 10_000_000))
_LIGHT = "all but the models, which are light ones"


@dataclass(frozen=True)
class Asked:
    """The largest size, and what to project to; ``models`` are the user's own, where given."""

    documents: int
    queries: int
    nodes: Nodes
    models: Models | None


def rehearsal(config: Config, asked: Asked, kept: Path | None, console: Console) -> None:
    """Measure the sizes, check the lines, project.

    What is made and measured stays in the folder ``kept`` and is used again; without one it goes.

    Raises:
        ConfigError: no reranker or no query log, or a log too small to recombine.
    """
    with tempfile.TemporaryDirectory() as passing:
        folder = (Path(passing) if kept is None else kept).absolute()
        stage = _Stage(folder, with_collection_paths(config))
        sizes = [(asked.documents // share, asked.queries // share) for share in _SHARES]
        nights = [stage.night(*size, console) for size in sizes]
    smallest, one, other, largest = nights
    law = Law.through(one, other)
    summary = {
        "index": config.index.kind,
        "depth": config.retrieval.depth,
        "nights": [night.to_dict() for night in nights],
        "checks": [_check(law, night) for night in (smallest, largest)],
        "projections": {
            name: [
                project(law, asked.nodes, *size, largest.pairs / largest.queries, models).to_dict()
                for size in (sizes[-1], *_LARGE)
            ]
            for name, models in _models(asked).items()
        },
    }
    console.result(summary, *_tables(summary, nights, asked))


def _models(asked: Asked) -> dict[str, Models | None]:
    named: dict[str, Models | None] = {_LIGHT: None}
    if asked.models is not None:
        each = asked.models
        name = f"{each.documents_per_second:,g} documents/s and {each.pairs_per_second:,g} pairs/s"
        named[f"with models of {name} on a node"] = each
    return named


def _check(law: Law, night: Night) -> dict[str, float]:
    """What the law says of a night, beside what it took."""
    return {
        "documents": night.documents,
        "queries": night.queries,
        "build": night.build,
        "build_expected": law.build.at(night.documents),
        "run": night.run,
        "run_expected": law.run(night.documents, night.queries, night.pairs),
    }


class _Stage:
    """The folder where nights are rehearsed, and the collection that they are made of."""

    def __init__(self, folder: Path, config: Config) -> None:
        if config.reranker is None or config.queries is None:
            raise ConfigError("benchmark rehearsal needs a reranker and a query log")
        documents = read_corpus(config.corpus).documents
        self._source = Source.of(
            documents["title"].to_pylist(),
            documents["text"].to_pylist(),
            make_plan(config.queries).queries["query"].to_pylist(),
        )
        self._folder = folder
        self._config = config
        self._encoder, self._scorer = write_models(self._source.vocabulary(), folder / "models")

    def night(self, documents: int, queries: int, console: Console) -> Night:
        """A night of that size, the one after it, and everything before; from its file if known."""
        place = self._folder / f"{documents}x{queries}"
        known = place / "night.json"
        if known.exists():
            return Night(**json.loads(known.read_text(encoding="utf-8")))
        console.note(f"{documents:,} documents and {queries:,} queries: making them")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self._make(place, documents, queries)
        job = _Jobs(self._settings(place), place)
        console.note("building the index")
        build = job("build-index")
        index_bytes = _bytes(place / "index")
        console.note(f"took {build['seconds']['total']:.0f} s; the first night")
        first = job.rerank("first")
        run_bytes = _bytes(place / "runs")
        console.note(f"took {first['seconds']['total']:.0f} s; 1 % of the documents change")
        write_documents(self._documents(documents, changed=True), place / "corpus.parquet")
        update = job("build-index")
        console.note(f"took {update['seconds']['total']:.0f} s; the second night")
        second = job.rerank("second")
        console.note(f"took {second['seconds']['total']:.0f} s")
        night = Night(
            documents=documents,
            queries=first["queries"],
            pairs=first["pairs"],
            gated=first["gated"],
            cpus=os.cpu_count() or 1,
            build=build["seconds"]["total"],
            run=first["seconds"]["total"],
            cores=first["cpu_seconds"],
            build_memory_gb=build["peak_memory_gb"],
            run_memory_gb=first["peak_memory_gb"],
            index_bytes=index_bytes,
            run_bytes=run_bytes,
            update=update["seconds"]["total"],
            again=second["seconds"]["total"],
            again_pairs=second["cache"]["scored_pairs"],
            again_cores=second["cpu_seconds"],
        )
        known.write_text(json.dumps(night.to_dict(), indent=2), encoding="utf-8")
        return night

    def _make(self, place: Path, documents: int, queries: int) -> None:
        """The corpus, and the logs of two nights that share most of their queries."""
        write_documents(self._documents(documents), place / "corpus.parquet")
        new = round(queries * _NEW_QUERIES)
        try:
            asked = self._source.distinct_queries(queries + new)
        except ValueError as error:
            raise ConfigError(f"benchmark rehearsal: {error}; give a larger log") from None
        write_log(asked[:queries], place / "first.parquet")
        write_log(asked[new:], place / "second.parquet")

    def _documents(self, count: int, changed: bool = False) -> Iterator[pa.Table]:
        for start in range(0, count, _ROWS):
            stop = min(start + _ROWS, count)
            table = self._source.documents(start, stop)
            if changed:
                others = self._source.documents(start, stop, edition=1)
                order = np.arange(stop - start)
                which = np.where((start + order) % _CHANGED_EACH, order, order + len(order))
                table = pa.concat_tables([table, others]).take(which)
            yield table

    def _settings(self, place: Path) -> Path:
        """The configuration with this place's collection and the light models."""
        given = self._config.model_dump(mode="json")
        kept = ("index", "retrieval", "compute", "cache", "storage")
        raw: dict[str, Any] = {section: given[section] for section in kept}
        raw |= {"root": str(place / "runs"), "job": "rehearsal"}
        raw["corpus"] = {"path": str(place / "corpus.parquet")}
        raw["queries"] = {"path": str(place / "first.parquet")}
        raw["index"]["path"] = str(place / "index")
        raw["index"]["encoder"] = f"sentence-transformers:{self._encoder}"
        raw["reranker"] = {
            "model": f"cross-encoder:{self._scorer}",
            "top_k": given["reranker"]["top_k"],
            "gate": given["reranker"]["gate"] or _GATE,
        }
        raw["cache"]["enabled"] = True
        raw["storage"]["cache"] = str(place / "cache")
        file = place / "config.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return file


@dataclass(frozen=True)
class _Jobs:
    """Commands of ours on one configuration, each a process of its own."""

    config: Path
    place: Path

    def __call__(self, command: str, *arguments: str) -> Any:
        return json.loads(run_job(command, str(self.config), *arguments, "--json"))

    def rerank(self, night: str) -> Any:
        log = f"queries.path={self.place / night}.parquet"
        return self("rerank", "--run-id", night, "--set", log)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- what is printed ---------------------------------------------------------------------------


def _tables(summary: Mapping[str, Any], nights: list[Night], asked: Asked) -> list[Table | str]:
    return [
        _measured(nights, summary["depth"], summary["index"]),
        _checked(summary["checks"]),
        *(_projected(name, rows, asked.nodes) for name, rows in summary["projections"].items()),
        f"Nodes of {asked.nodes.cpus} CPUs and {asked.nodes.memory_gb:g} GiB at "
        f"{asked.nodes.price:g} an hour, as few as end a night in {asked.nodes.hours:g} hours and "
        "hold the index in half of their memory; work is taken to divide evenly among them.",
    ]


def _measured(nights: list[Night], depth: int, kind: str) -> Table:
    table = Table(
        title=f"Measured: {kind} index, {depth} candidates, {nights[0].cpus} CPUs",
        title_justify="left",
    )
    table.add_column("")
    for night in nights:
        table.add_column(f"{night.documents:,} docs\n{night.queries:,} queries", justify="right")
    stages = list(nights[0].cores)
    rows: dict[str, list[str]] = {
        "build, s": [f"{n.build:.0f}" for n in nights],
        "a night, s": [f"{n.run:.0f}" for n in nights],
        **{f"  cores on {stage}, s": [f"{n.cores[stage]:.1f}" for n in nights] for stage in stages},
        "pairs": [f"{n.pairs:,}" for n in nights],
        "gated": [f"{n.gated / n.queries:.1%}" for n in nights],
        "peak memory of a build, GiB": [f"{n.build_memory_gb:.2f}" for n in nights],
        "peak memory of a night, GiB": [f"{n.run_memory_gb:.2f}" for n in nights],
        "index on disk, GB": [f"{n.index_bytes / 1e9:.2f}" for n in nights],
        "run and scores on disk, GB": [f"{n.run_bytes / 1e9:.2f}" for n in nights],
        "update of 1 %, s": [f"{n.update:.0f}" for n in nights],
        "the night after, s": [f"{n.again:.0f}" for n in nights],
        "  pairs scored": [f"{n.again_pairs:,}" for n in nights],
        "  of the first one's core time": [
            f"{sum(n.again_cores.values()) / sum(n.cores.values()):.0%}" for n in nights
        ],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def _checked(checks: list[dict[str, float]]) -> Table:
    table = Table(
        title="Lines through the two middle sizes, checked on the others", title_justify="left"
    )
    for column in ("documents", "queries", "what", "expected, s", "measured, s", "off by"):
        table.add_column(column, justify="right")
    for check in checks:
        for what in ("build", "run"):
            expected, measured = check[f"{what}_expected"], check[what]
            table.add_row(
                f"{check['documents']:,}",
                f"{check['queries']:,}",
                what,
                f"{expected:.0f}",
                f"{measured:.0f}",
                f"{expected / measured - 1:+.0%}",
            )
    return table


def _projected(name: str, rows: list[dict[str, Any]], nodes: Nodes) -> Table:
    table = Table(title=f"Projected, {name}", title_justify="left")
    columns = ("documents", "queries", "index, GiB", "nodes", "build, h", "money")
    for column in (*columns, "a night, h", "money"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['documents']:,}",
            f"{row['queries']:,}",
            f"{row['index_gb']:,.1f}",
            f"{row['nodes']:,}",
            f"{row['build_hours']:,.2f}",
            f"{row['build_price']:,.2f}",
            f"{row['run_hours']:,.2f}",
            f"{row['run_price']:,.2f}",
        )
    return table
