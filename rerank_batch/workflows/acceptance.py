"""What `evaluate` requires of a run, for use in CI."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
class Requirements:
    """``limits`` as they were written; the run to be no worse than; a Markdown file to write."""

    limits: tuple[str, ...] = ()
    no_worse_than: str | None = None
    margin: float = 0.005
    markdown: Path | None = None


def prepare(requirements: Requirements, config: Config) -> tuple[tuple[Limit, ...], Run | None]:
    """Read and check the requirements before anything runs.

    Raises:
        ConfigError: a limit that is none, or a Markdown file without a folder.
        RunConflict: there is no such run, or it is not finished.
    """
    limits = tuple(parse_limit(text, config.evaluation.measures) for text in requirements.limits)
    if requirements.markdown is not None and not requirements.markdown.absolute().parent.is_dir():
        raise ConfigError(f"--markdown {requirements.markdown}: its folder does not exist")
    if requirements.no_worse_than is None:
        return limits, None
    root = open_root(config.root)
    newest = requirements.no_worse_than == "latest"
    other = latest_run(root, config.job) if newest else Run.open(root, requirements.no_worse_than)
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
        other_id, earlier = other
        if other_id == run_id:
            raise ConfigError(f"--no-worse-than {run_id}: that is the run itself")
        name = comparison.measures[0]
        own, others = (each.by_query(each.best, name) for each in (comparison, earlier))
        checks.append(check_no_worse(name, f"run {other_id}", own, others, margin))
    return tuple(checks)


def judge(run_id: str, checks: Sequence[Check], report: str) -> None:
    """Fail where a check of an evaluation did; ``report`` is where its page lies.

    Raises:
        NotGoodEnough: the message says what was required and what came out.
    """
    failed = [f"not {check.requirement}: {check.numbers}" for check in checks if not check.passed]
    if failed:
        raise NotGoodEnough(
            f"run {run_id} is not good enough: {'; '.join(failed)}. Its report says where: {report}"
        )


def write_markdown(file: Path, text: str) -> None:
    """Write the text, whole.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"--markdown {file} cannot be written: {error.strerror}") from None
