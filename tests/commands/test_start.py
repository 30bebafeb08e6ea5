"""How a run is begun or gone on with, by what the command line was given."""

from pathlib import Path

import pytest

from jobs.command import start_from_options
from rerank_batch.errors import ConfigError
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.workflows.start import Start
from tests.support.helpers import spec


def test_or_resume_begins_the_run_and_then_goes_on_with_it(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    start = start_from_options("nightly-1", None, take_over=False, or_resume=True)
    assert start.to_resume(root) is None
    Run.create(root, "nightly-1", spec())
    assert start.to_resume(root) == "nightly-1"
    assert Start(run_id="nightly-1").to_resume(root) is None, "else an id in use is refused"
    assert Start(resume="other").to_resume(root) == "other"


@pytest.mark.parametrize(
    ("run_id", "resume", "take_over", "or_resume", "said"),
    [
        (None, None, False, True, "--or-resume goes with --run-id"),
        (None, "died", False, True, "--or-resume goes with --run-id"),
        ("new", "died", False, False, "give one of them"),
        ("new", None, True, False, "--take-over goes with --resume"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run_id: str | None, resume: str | None, take_over: bool, or_resume: bool, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        start_from_options(run_id, resume, take_over, or_resume)


def test_a_name_that_is_no_run_id_is_refused_before_it_is_looked_up(tmp_path: Path) -> None:
    start = start_from_options("../outside", None, take_over=False, or_resume=True)
    with pytest.raises(ConfigError, match="not a run id"):
        start.to_resume(open_root(str(tmp_path)))
