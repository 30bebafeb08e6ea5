"""The command `evaluate`, with `--calibrate-gate`."""

from pathlib import Path
from typing import Annotated

import typer

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError

from .command import command_console, config_from_options, start_from_options
from .console import Console
from .options import (
    AsJson,
    ConfigFile,
    Date,
    DryRun,
    LogFormat,
    LogFormatOption,
    Overrides,
    Resume,
    RunId,
    TakeOver,
    Verbose,
    expand_path,
)

app = typer.Typer()

_FinishedRun = Annotated[
    str | None,
    typer.Option("--run", help="Evaluate this finished run, or 'latest', without running."),
]
_CalibrateGate = Annotated[
    bool,
    typer.Option(
        "--calibrate-gate",
        help="Learn which queries can skip the reranker; print what to write in the gate.",
    ),
]
_Confidence = Annotated[
    float, typer.Option(min=0.5, max=0.999, help="With --calibrate-gate: of the bound.")
]
_FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="MEASURE>=VALUE",
        help="Leave with exit code 14 unless it is so; may be repeated: 'nDCG@10>=0.40'.",
    ),
]
_NoWorseThan = Annotated[
    str | None,
    typer.Option(
        "--no-worse-than",
        metavar="RUN",
        help="Exit code 14 unless the first measure is sure to have lost no more than --margin "
        "against this finished run, or 'latest', on the queries of both.",
    ),
]
_Margin = Annotated[
    float, typer.Option(min=0, help="With --no-worse-than: the loss that is allowed.")
]
_Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown",
        metavar="FILE",
        callback=expand_path,
        help="Write the tables for a pull request.",
    ),
]


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
    run: _FinishedRun = None,
    calibrate_gate: _CalibrateGate = False,
    confidence: _Confidence = 0.95,
    fail_under: _FailUnder = None,
    no_worse_than: _NoWorseThan = None,
    margin: _Margin = 0.005,
    markdown: _Markdown = None,
    dry_run: DryRun = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare reranked lists with those of retrieval, or all of evaluation.systems with the first,
    on judged queries; write metrics and an HTML report."""
    with command_console(as_json, verbose, log_format) as console:
        from rerank_batch.workflows.acceptance import Requirements, judge

        from .tables import evaluation as table

        if run is not None and (run_id is not None or resume is not None):
            raise ConfigError(
                "--run takes a finished run, --run-id names a new one, --resume one that died: "
                "give one of them"
            )
        if dry_run:
            if run is not None:
                raise ConfigError("--run takes a finished run: there is nothing to try out")
            _show_plan(config_from_options(config, overrides, date), console)
            return
        start = start_from_options(run_id, resume, take_over)
        requirements = Requirements(tuple(fail_under or ()), no_worse_than, margin, markdown)
        if calibrate_gate and requirements != Requirements(margin=margin):
            raise ConfigError(
                "--calibrate-gate learns and checks nothing: leave --fail-under, "
                "--no-worse-than and --markdown to another evaluate"
            )
        loaded = config_from_options(config, overrides, date, run or resume or run_id)
        if calibrate_gate:
            from rerank_batch.workflows import calibrate_gate as calibration

            from .tables import calibrate_gate as gate_table

            learned = calibration.calibrate_gate(loaded, console, start, run, confidence)
            gate_table.show(learned, console)
            return
        from rerank_batch.workflows import evaluate as job

        evaluation = job.evaluate(loaded, console, start, run, requirements)
        table.show(evaluation, console)
        judge(evaluation.run_id, evaluation.checks, evaluation.report)


def _show_plan(config: Config, console: Console) -> None:
    from rerank_batch.workflows.dry_run import dry_run as check

    from .tables import rerank as table

    several = bool(config.evaluation.systems)
    table.show_plan(check(config, judged_only=True, compare=several), console)
