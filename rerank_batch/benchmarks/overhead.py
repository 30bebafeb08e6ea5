"""Measurements of whole jobs: each run is a process of its own, as a user would start it."""

import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch.benchmarks.command import command_line
from rerank_batch.benchmarks.timing import timed
from rerank_batch.config import Config, Lossy, load_config
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.errors import ComputeError, ConfigError
from rerank_batch.pipeline.actors import share_actors, use_threads
from rerank_batch.pipeline.placement import divide
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.pipeline.work import StagePlan
from rerank_batch.runs import Commit, CommitName, Run
from rerank_batch.score_cache import ScoreCache
from rerank_batch.score_cache.measure import thin
from rerank_batch.storage import NodeCache, Root, open_root
from rerank_batch.workflows.inputs import read_inputs
from rerank_batch.workflows.modes import modes_of
from rerank_batch.workflows.reranking import scorer_uses


def resume(config_file: Path, overrides: list[str], done: float, console: Console) -> None:
    """Run a job, then the same run again with a share of it done, each in a process of its own."""
    config = load_config(config_file, overrides)
    root = open_root(config.root)
    name = f"bench-{secrets.token_hex(3)}"
    settings = as_options(overrides)
    job = partial(run_job, "rerank", str(config_file), *settings)
    console.note("the whole run")
    full = timed(lambda: job("--run-id", f"{name}-full"))
    whole = Run.open(root, f"{name}-full")
    commits = whole.commits([CommitName.parse(text) for text in whole.finished()["commits"]])
    kept = commits[: int(len(commits) * done)]
    _copy_part(root, whole, f"{name}-part", kept)
    console.note(f"the same run with {len(kept)} of {len(commits)} blocks done")
    again = timed(lambda: job("--resume", f"{name}-part"))
    summary = {
        "config": str(config_file),
        "blocks": len(commits),
        "blocks_done": len(kept),
        "full_seconds": full,
        "resume_seconds": again,
        "share": again / full,
    }
    facts = {
        "whole run": f"{full:.1f} s for {len(commits)} blocks",
        "resumed": f"{again:.1f} s with {len(kept)} of {len(commits)} blocks done",
        "share": f"{again / full:.1%} of the whole run",
    }
    console.result(summary, facts_table("Resume", facts))


def nightly(config_file: Path, overrides: list[str], new: float, console: Console) -> None:
    """A whole run, then the same one with all but a share of its pairs in the cache.

    The pairs that are new are drawn from all queries alike. Both runs must say the same.
    """
    config = load_config(config_file, [*overrides, "cache.enabled=true"])
    if config.reranker is None:
        raise ConfigError("benchmark nightly needs a reranker: without one nothing is scored")
    name = f"bench-{secrets.token_hex(3)}"
    places = [f"{config.root.rstrip('/')}/{name}/{night}" for night in ("first", "second")]
    seconds, facts, contents = [], [], []
    for number, place in enumerate(places):
        settings = as_options([*overrides, "cache.enabled=true", f"root={place}"])
        if number:
            _copy_thinned(open_root(places[0]), open_root(place), new)
        console.note("a whole night" if not number else f"the night after: {new:.0%} new pairs")
        job = partial(run_job, "rerank", str(config_file), *settings, "--run-id", "night")
        seconds.append(timed(job))
        run = Run.open(open_root(place), "night")
        facts.append(run.finished())
        contents.append(content_of(run))
    same = contents[0].equals(contents[1])
    summary = {
        "config": str(config_file),
        "pairs": facts[0]["pairs"],
        "mode": facts[0]["mode"],
        "first_seconds": seconds[0],
        "second_seconds": seconds[1],
        "share": seconds[1] / seconds[0],
        "scored_pairs": facts[1]["cache"]["scored_pairs"],
        "same_results": same,
        "roots": places,
    }
    told = {
        "first night": f"{seconds[0]:.1f} s, {facts[0]['pairs']:,} pairs in {facts[0]['mode']}",
        "second night": f"{seconds[1]:.1f} s, {summary['scored_pairs']:,} of them scored",
        "share": f"{summary['share']:.1%} of the first night",
        "results": verdict(same),
    }
    console.result(summary, facts_table("Night after night", told))


def overhead(config_file: Path, overrides: list[str], console: Console) -> None:
    """The job, and then its stages in a plain loop in this process: what everything else costs.

    The mode of the model is the one that the configured root has measured, if it has: that is done
    once for a root, by the first job.
    """
    config = with_collection_paths(load_config(config_file, [*overrides, "cache.enabled=false"]))
    name = f"bench-{secrets.token_hex(3)}"
    place = f"{config.root.rstrip('/')}/{name}"
    settings = as_options([*overrides, "cache.enabled=false", f"root={place}"])
    _copy_modes(open_root(config.root), open_root(place))
    console.note("the job")
    job = partial(run_job, "rerank", str(config_file), *settings, "--run-id", "job")
    whole = timed(job)
    run = Run.open(open_root(place), "job")
    console.note(f"took {whole:.1f} s; now the plain loop")
    loop = _PlainLoop({}, [])
    plain = timed(lambda: loop.run(config, run))
    content = content_of(run)
    found = pa.concat_tables(loop.blocks).select(content.column_names).combine_chunks()
    same = content.equals(found)
    final = run.finished()
    stages = {stage: (final["seconds"][stage], took) for stage, took in loop.seconds.items()}
    summary = {
        "config": str(config_file),
        "pairs": final["pairs"],
        "job_seconds": whole,
        "plain_seconds": plain,
        "overhead": 1 - plain / whole,
        "stage_seconds": {
            stage: {"job": in_job, "plain": alone} for stage, (in_job, alone) in stages.items()
        },
        "same_results": same,
    }
    told = [f"{name} {job:.1f} for {alone:.1f}" for name, (job, alone) in stages.items()]
    facts = {
        "job": f"{whole:.1f} s from the command to its end, {summary['pairs']:,} pairs",
        "plain loop": f"{plain:.1f} s: the same stages, no Ray, no storage, no commits",
        "overhead": f"{summary['overhead']:.1%} of the job",
        "of it stages": f"{', '.join(told)} s",
        "results": verdict(same),
    }
    console.result(summary, facts_table("Overhead", facts))


@dataclass(frozen=True)
class _PlainLoop:
    """The blocks that a run's stages made in this process, and the seconds of each stage."""

    seconds: dict[str, float]
    blocks: list[pa.Table]

    def run(self, config: Config, run: Run) -> None:
        """What the run's stages make of its plan, block by block."""
        specs = _stages_here(config, run)
        stages = [(spec, spec.stage(**spec.kwargs, threads=spec.pool.threads)) for spec in specs]
        for number in range(len(run.blocks())):
            table = run.read_block(number)
            for spec, stage in stages:
                use_threads(spec.pool.threads)
                began = time.perf_counter()
                table = stage(table)
                took = time.perf_counter() - began
                self.seconds[spec.name] = self.seconds.get(spec.name, 0) + took
            self.blocks.append(table)


def _stages_here(config: Config, run: Run) -> list[StageSpec]:
    """The run's stages, as they are planned for this machine."""
    cpus = os.cpu_count() or 1 if config.compute.cpus == "auto" else config.compute.cpus
    work = read_inputs(config)
    uses = scorer_uses(run, config, work, modes_of(run, work), [None] * len(work.scorers))
    here = Cluster(cpus, 0)
    groups, _ = divide(config.compute, work.searches(config), here, lambda cache: cache.room())
    stages = work.stages(config, StagePlan(here, run.spec.block_rows, uses, groups))
    return share_actors(stages, here.cpus, here.gpus)


def formats(
    config_file: Path, overrides: list[str], lossy: Sequence[Lossy], console: Console
) -> None:
    """The judged queries in float32 and in formats that lose digits: measures, lists, speed."""
    config = load_config(config_file, overrides)
    if config.reranker is None:
        raise ConfigError("benchmark formats needs a reranker: without one nothing is scored")
    name = f"bench-{secrets.token_hex(3)}"
    found: dict[str, dict[str, Any]] = {}
    lists: dict[str, dict[str, list[str]]] = {}
    for number_format in ("fp32", *lossy):
        root = f"{config.root.rstrip('/')}/{name}/{number_format}"
        console.note(f"the judged queries in {number_format}")
        settings = [
            *overrides,
            "cache.enabled=false",
            f"root={root}",
            f"reranker.precision={number_format}",
        ]
        summary = json.loads(run_job("evaluate", str(config_file), *as_options(settings), "--json"))
        run = Run.open(open_root(root), summary["run_id"])
        final = run.finished()
        found[number_format] = {
            "mode": final["mode"],
            "metrics": summary["metrics"]["reranked"],
            "pairs_per_second": round(final["pairs"] / final["seconds"]["rerank"], 1),
        }
        rows = content_of(run).select(["query_id", "results"]).to_pylist()
        lists[number_format] = {
            row["query_id"]: [hit["doc_id"] for hit in row["results"]] for row in rows
        }
        found[number_format]["churn"], found[number_format]["changed"] = _churn(
            lists["fp32"], lists[number_format]
        )
    measures = list(found["fp32"]["metrics"])
    table = Table(
        title=f"{config_file}: {len(lists['fp32']):,} judged queries", title_justify="left"
    )
    table.add_column("precision")
    for column in ("ran as", "pairs/s of a scorer", *measures, "other documents", "other lists"):
        table.add_column(column, justify="right")
    for number_format, each in found.items():
        exact = found["fp32"]["metrics"]
        values = [(each["metrics"][measure], exact[measure]) for measure in measures]
        table.add_row(
            number_format,
            each["mode"],
            f"{each['pairs_per_second']:,}",
            *(f"{value:.4f} ({value - of_exact:+.4f})" for value, of_exact in values),
            f"{each['churn']:.2%}",
            f"{each['changed']:.1%}",
        )
    console.result({"config": str(config_file), "formats": found}, table)


def verdict(same: bool) -> str:
    """Whether results are the same, in words."""
    return "the same to the last bit" if same else "NOT the same"


def _churn(before: dict[str, list[str]], after: dict[str, list[str]]) -> tuple[float, float]:
    """The share of listed documents that were not listed before, and of lists that are others."""
    listed = sum(map(len, before.values()))
    kept = sum(len({*before[query]} & {*after.get(query, ())}) for query in before)
    other = sum(before[query] != after.get(query) for query in before)
    return 1 - kept / max(listed, 1), other / max(len(before), 1)


def run_job(*arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    """Run a command of ours, in another environment if one is given; what it printed."""
    finished = subprocess.run(command_line(*arguments), capture_output=True, check=False, env=env)
    if finished.returncode:
        raise ComputeError(f"the job failed: {finished.stderr.decode()[-2000:]}")
    return finished.stdout


def as_options(overrides: Sequence[str]) -> list[str]:
    """As options; a measurement is guarded by nobody and nobody is told of it."""
    every = [*overrides, "guards={}", "notify={}"]
    return [part for override in every for part in ("--set", override)]


def content_of(run: Run) -> pa.Table:
    """Every result row of a run, in the order of the queries."""
    tables = [run.read_table(file) for file in run.finished()["results"]]
    return pa.concat_tables(tables).sort_by("qidx").combine_chunks()


def _copy_thinned(before: Root, root: Root, missing: float) -> None:
    """The measured modes and cached scores of one root to another, but for a share of the pairs."""
    _copy_modes(before, root)
    scopes = {key.split("/")[1] for key in before.sizes("scores/")}
    for scope in scopes:
        with tempfile.TemporaryDirectory() as folder:
            wanted = ScoreCache(before, scope).snapshot().segments
            files = NodeCache(Path(folder), 1 << 50).fetch(before, wanted)
            thinned = [Path(folder) / f"{number}.arrow" for number in range(len(files))]
            for file, target in zip(files, thinned, strict=True):
                thin(file, target, missing)
            ScoreCache(root, scope).add("night-before", thinned)


def _copy_modes(before: Root, root: Root) -> None:
    for key in before.sizes("modes/"):
        root.create_once(key, before.read(key) or b"")


def _copy_part(root: Root, whole: Run, run_id: str, kept: list[Commit]) -> None:
    """The run under another id as if its driver had died after ``kept``."""
    prefix = f"runs/{whole.run_id}/"
    files = {file.key for commit in kept for file in commit.files}
    files |= {commit.name.key for commit in kept}
    for key in root.sizes(prefix):
        name = key.removeprefix(prefix)
        folder = name.partition("/")[0]
        if folder in ("spec.json", "plan", "epochs") or name in files or "plan" in name:
            raw = root.read(key) or b""
            with tempfile.TemporaryDirectory() as local:
                file = Path(local) / "object"
                file.write_bytes(raw)
                root.publish(f"runs/{run_id}/{name}", file)
