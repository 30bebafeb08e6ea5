"""How much faster a job is with more scorers: the same work with each number of them, in turn."""

import os
import secrets
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from jobs.console import Console
from rerank_batch.benchmarks.overhead import as_options, content_of, run_job, verdict
from rerank_batch.config import Config, load_config
from rerank_batch.errors import ConfigError
from rerank_batch.pipeline.pools import plan_pools
from rerank_batch.ray_backend.local_nodes import nodes_here
from rerank_batch.runs import Run
from rerank_batch.storage import open_root


@dataclass(frozen=True)
class Asked:
    """What to measure: numbers of scorers, how many CPUs there are for each, how often, and
    whether each is on a Ray node of its own."""

    actors: tuple[int, ...]
    cpus: int
    rounds: int
    nodes: bool


def scaling(config_file: Path, overrides: list[str], asked: Asked, console: Console) -> None:
    """Run a job with each number of scorers, round by round, each run a process of its own.

    A first run that does not count decides the mode and warms caches. Rates of the whole are pairs
    over the seconds from a started Ray to the last commit, in which every scorer loads its model
    and the last ones wait for each other; those of scoring are over the seconds that scorers score.

    Raises:
        ConfigError: nothing is scored, or the numbers cannot be compared.
    """
    config = load_config(config_file, overrides)
    threads = _threads(config, asked)
    place = f"{config.root.rstrip('/')}/bench-{secrets.token_hex(3)}"
    work = _Work(config_file, (*overrides, "cache.enabled=false", f"root={place}"), place)
    rates: dict[int, list[float]] = {actors: [] for actors in asked.actors}
    scoring: dict[int, list[float]] = {actors: [] for actors in asked.actors}
    first: pa.Table | None = None
    same = True
    for number in range(asked.rounds + 1):
        for actors in asked.actors if number else asked.actors[:1]:
            with _cluster(config, asked, actors) as environment:
                run = work.run(f"{actors}-of-round-{number}", actors, asked.cpus, environment)
            final = run.finished()
            rate = final["pairs"] / max(final["seconds"]["execute"], 1e-9)
            what = f"round {number}" if number else "first, not counted"
            console.note(f"{what}: {actors} scorers, {rate:,.1f} pairs/s")
            found = content_of(run)
            first = found if first is None else first
            same = same and found.equals(first)
            if number:
                rates[actors].append(rate)
                scoring[actors].append(final["pairs"] * actors / _scoring_seconds(final))
    least = asked.actors[0]
    summary = {
        "config": str(config_file),
        "pairs": final["pairs"],
        "blocks": run.spec.blocks,
        "mode": final["mode"],
        "threads": threads,
        "nodes": asked.nodes,
        "rounds": asked.rounds,
        "same_results": same,
        "scorers": [
            {
                **_compared(actors, rates[actors], rates[least]),
                "scoring": _compared(actors, scoring[actors], scoring[least]),
            }
            for actors in asked.actors
        ],
    }
    console.result(summary, _table(summary), f"results: {verdict(same)}")


def _threads(config: Config, asked: Asked) -> int:
    """The threads of a scorer, which must be as many whatever the number of scorers."""
    if config.reranker is None:
        raise ConfigError("benchmark scaling needs a reranker: without one nothing is scored")
    if config.compute.address is not None:
        raise ConfigError("benchmark scaling starts Ray on this machine: leave compute.address out")
    threads = {
        plan_pools(_compute(config, actors), actors * asked.cpus, 0).scorers.threads
        for actors in asked.actors
    }
    if len(threads) > 1:
        raise ConfigError(
            f"with {asked.cpus} CPUs for each, scorers would have {sorted(threads)} threads by "
            "their number, which cannot be compared: give another --cpus"
        )
    return threads.pop()


def _compute(config: Config, actors: int) -> Any:
    return config.compute.model_copy(update={"scorers": actors})


@dataclass(frozen=True)
class _Work:
    """The job that is run again and again, under a root of its own."""

    config_file: Path
    overrides: tuple[str, ...]
    root: str

    def run(self, run_id: str, actors: int, cpus: int, environment: Mapping[str, str]) -> Run:
        """The job once, with so many scorers."""
        sizes = (f"compute.scorers={actors}", f"compute.cpus={actors * cpus}")
        options = as_options([*self.overrides, *sizes])
        run_job("rerank", str(self.config_file), *options, "--run-id", run_id, env=environment)
        return Run.open(open_root(self.root), run_id)


@contextmanager
def _cluster(config: Config, asked: Asked, actors: int) -> Iterator[dict[str, str]]:
    """The environment of a job: of one that starts Ray itself, or uses nodes that are here."""
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if not asked.nodes:
        yield own
        return
    with nodes_here(actors, asked.cpus, config.compute.object_store_mb) as address:
        yield {**own, "RAY_ADDRESS": address}


def _scoring_seconds(final: Mapping[str, Any]) -> float:
    """Seconds of all scorers together, of every stage that scores."""
    seconds: float = sum(
        took for name, took in final["seconds"].items() if name.startswith("rerank")
    )
    return max(seconds, 1e-9)


def _compared(actors: int, rates: Sequence[float], least: Sequence[float]) -> dict[str, Any]:
    ratios = [rate / of_least for rate, of_least in zip(rates, least, strict=True)]
    return {
        "actors": actors,
        "median": round(statistics.median(rates), 1),
        "low": round(min(rates), 1),
        "high": round(max(rates), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
    }


def _table(summary: dict[str, Any]) -> Table:
    where = "each on a Ray node of its own" if summary["nodes"] else "on one Ray node"
    table = Table(
        title=f"{summary['pairs']:,} pairs in {summary['blocks']} blocks, {summary['mode']}, "
        f"{summary['threads']} threads each, {where}",
        title_justify="left",
    )
    table.add_column("scorers", justify="right")
    table.add_column("of")
    for column in ("pairs/s", "range", "times the first", "range"):
        table.add_column(column, justify="right")
    for whole in summary["scorers"]:
        for what, each in (("the whole", whole), ("scoring", whole["scoring"])):
            table.add_row(
                str(each["actors"]),
                what,
                f"{each['median']:,}",
                f"{each['low']:,} to {each['high']:,}",
                f"{each['ratio']:.2f}",
                f"{each['ratio_low']:.2f} to {each['ratio_high']:.2f}",
            )
    return table
