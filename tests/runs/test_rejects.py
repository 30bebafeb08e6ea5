"""The message that stops a run at ``limits.max_rejects``: counts by reason, and what to change."""

import pytest

from rerank_batch.errors import TooManyRejects
from rerank_batch.runs.rejects import check_rejects

LOG = {"empty_query": 2, "missing_query": 1}
NO_NUMBER = {"non_finite_score": 40}


def message(planned, later, limit=2):
    with pytest.raises(TooManyRejects) as error:
        check_rejects(planned, later, 63, limit, "night")
    assert error.value.exit_code == 11
    assert "--set limits.max_rejects=" in str(error.value)
    return str(error.value)


def test_rows_of_the_log_are_the_logs_to_mend():
    found = message(LOG, {})
    assert found.startswith("3 of 63 log rows are rejected, more than limits.max_rejects (2)")
    assert "of the log itself empty_query 2, missing_query 1." in found
    assert "--dry-run" in found
    assert "model" not in found


def test_scores_that_are_no_numbers_are_the_models():
    found = message({}, NO_NUMBER)
    assert "40 of 63 log rows" in found
    assert "by the models during the run non_finite_score 40." in found
    assert "precision: fp32" in found
    assert "another model" in found
    assert "runs/night/rejects" in found
    assert "--dry-run" not in found
    assert "mend" not in found


def test_both_kinds_are_told_apart():
    found = message(LOG, {**NO_NUMBER, "rerank_failed:RuntimeError": 1})
    assert found.startswith("44 of 63 log rows")
    assert "during the run non_finite_score 40, rerank_failed:RuntimeError 1;" in found
    assert "of the log itself empty_query 2, missing_query 1." in found
    for advice in ("precision: fp32", "worker's log", "runs/night/rejects", "--dry-run"):
        assert advice in found


def test_vectors_that_are_no_numbers_are_the_encoders():
    found = message({}, {"non_finite_vector": 5})
    assert "index.encoder" in found
    assert "precision" not in found


@pytest.mark.parametrize(
    ("planned", "later", "limit"),
    [(LOG, {}, 3), ({}, NO_NUMBER, 40), (LOG, NO_NUMBER, 0.7), ({}, {}, 0)],
)
def test_what_the_limit_allows_goes_on(planned, later, limit):
    check_rejects(planned, later, 63, limit, "night")
