"""Whose night it is: the day that a query log is of is found once, and a resume keeps to it."""

import datetime
import shutil
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import Config, dated, parse_config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.runs import Run

DAY = datetime.date(2026, 3, 1)


def config(path: str, **queries: Any) -> Config:
    raw = {
        "corpus": {"path": "c"},
        "index": {"path": "i", "encoder": "e"},
        "queries": {"path": path, **queries},
    }
    return parse_config(raw)


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        ("log/date={yesterday}", "log/date=2026-02-28"),
        ("s3://b/{date:%Y/%m/%d}/*.parquet", "s3://b/2026/03/01/*.parquet"),
        ("{yesterday:%Y%m%d}-{date}.parquet", "20260228-2026-03-01.parquet"),
    ],
)
def test_a_template_is_filled_with_the_day(path: str, filled: str) -> None:
    made = dated(config(path, filter=[["day", "in", ["{yesterday}", "{date}"]]]), DAY)
    assert made.queries is not None
    assert (made.queries.path, made.queries.date) == (filled, DAY)
    assert made.queries.filter == (("day", "in", ["2026-02-28", "2026-03-01"]),)
    assert dated(made, DAY - datetime.timedelta(days=9)) == made, "what is filled in stays"


def test_a_log_without_templates_has_no_day() -> None:
    assert dated(config("log"), DAY) == config("log")


@pytest.mark.parametrize("path", ["log/{yesteday}", "log/{tomorrow:%Y}", "{date:%Q}", "{date:%}"])
def test_what_is_no_template_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"queries\.path: \{"):
        dated(config(path), DAY)


@pytest.fixture
def logs(collection: Path, tmp_path: Path) -> str:
    """Two days of log, of which the second has a query less."""
    import pyarrow.parquet as pq

    for day, rows in (("2026-02-28", 40), ("2026-03-01", 39)):
        folder = tmp_path / "log" / f"date={day}"
        folder.mkdir(parents=True)
        pq.write_table(
            pq.read_table(collection / "log.parquet").slice(0, rows), folder / "0.parquet"
        )
    return f"queries.path={tmp_path / 'log'}/date={{yesterday}}"


def test_a_resume_after_midnight_reads_the_log_that_the_run_began_with(
    nights: Any, logs: str, tmp_path: Path
) -> None:
    first = nights("rerank", "--run-id", "night", "--set", logs, "--date", "2026-03-01")
    assert first.exit_code == 0, first.output
    spec = Run.open(nights.root, "night").spec
    assert spec.config["queries"]["date"] == "2026-03-01"
    assert spec.config["queries"]["path"].endswith("/date=2026-02-28")

    again = nights("rerank", "--resume", "night", "--set", logs)  # today is another day
    assert again.exit_code == 0, again.output
    assert "nothing is left to do" in again.output
    other = nights("rerank", "--resume", "night", "--set", logs, "--date", "2026-03-02")
    assert other.exit_code == 9, other.output

    shutil.rmtree(tmp_path / "log" / "date=2026-02-28")
    gone = nights("rerank", "--resume", "night", "--set", logs)
    assert gone.exit_code == InputError.exit_code and "2026-02-28" in gone.output


def test_a_day_that_is_none(nights: Any) -> None:
    told = nights("rerank", "--date", "yesterday")
    assert told.exit_code == ConfigError.exit_code
    assert "--date takes a day such as 2026-01-02" in told.output
