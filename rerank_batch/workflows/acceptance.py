"""What `evaluate` is asked to hold a run to, for use in CI, and where to tell of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, NotGoodEnough, StorageError
from rerank_batch.evaluation.acceptance import (
    Check,
    Limit,
    check_limit,
    check_no_worse,
    parse_limit,
)
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.runs import Run, latest_run
from rerank_batch.storage import open_root


@dataclass(frozen=True)
class Asked:
    """``limits`` as they were written; the run to be no worse than; a Markdown file to write."""

    limits: tuple[str, ...] = ()
    no_worse_than: str | None = None
    margin: float = 0.005
    markdown: Path | None = None


def prepare(asked: Asked, config: Config) -> tuple[tuple[Limit, ...], Run | None]:
    """What is wrong with what is asked is told before anything runs.

    Raises:
        ConfigError: a limit that is none, or a Markdown file without a folder.
        RunConflict: there is no such run, or it is not finished.
    """
    limits = tuple(parse_limit(text, config.evaluation.measures) for text in asked.limits)
    if asked.markdown is not None and not asked.markdown.absolute().parent.is_dir():
        raise ConfigError(f"--markdown {asked.markdown}: its folder does not exist")
    if asked.no_worse_than is None:
        return limits, None
    root = open_root(config.root)
    newest = asked.no_worse_than == "latest"
    other = latest_run(root, config.job) if newest else Run.open(root, asked.no_worse_than)
    other.finished()
    return limits, other


def check(
    run_id: str,
    comparison: Comparison,
    limits: Sequence[Limit],
    margin: float,
    other: tuple[str, Comparison] | None = None,
) -> tuple[Check, ...]:
    """Hold a run's values against the limits, and against those of another run.

    They are those of the reranked lists; where several systems were compared, of the best of them
    by the first measure.

    Raises:
        ConfigError: the other run is the run itself, so that nothing could ever fail.
    """
    means = comparison.means()[comparison.best]
    checks = [check_limit(limit, means) for limit in limits]
    if other is not None:
        name_of_other, theirs = other
        if name_of_other == run_id:
            raise ConfigError(f"--no-worse-than {run_id}: that is the run itself")
        name = comparison.measures[0]
        ours, before = (each.by_query(each.best, name) for each in (comparison, theirs))
        checks.append(check_no_worse(name, f"run {name_of_other}", ours, before, margin))
    return tuple(checks)


def judge(summary: Mapping[str, Any]) -> None:
    """Fail where a check of an evaluation did.

    Raises:
        NotGoodEnough: the message says what was asked and what came out.
    """
    failed = [check for check in summary["checks"] if not check["passed"]]
    if failed:
        told = "; ".join(f"not {check['asked']}: {check['told']}" for check in failed)
        report = f". Its report says where: {summary['report']}" if summary.get("report") else ""
        raise NotGoodEnough(f"run {summary['run_id']} is not good enough: {told}{report}")


def lines(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each check that passed; `judge` tells of the others."""
    return [f"passed: {check['asked']} ({check['told']})" for check in checks if check["passed"]]


def write_markdown(file: Path, text: str) -> None:
    """Write the text, whole.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--markdown {file} cannot be written: {error.strerror}") from None
