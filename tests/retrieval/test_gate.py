"""The gate: signals of retrieval scores, and which side of a threshold means sure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rerank_batch.config import GateConfig
from rerank_batch.retrieval.gate import Gate, sureness, sureness_of_value

SCORES = np.array([0.9, 0.7, 0.65, 0.2], np.float32)


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        ("top1", 0.9),
        ("margin", 0.2),
        ("margin@3", 0.25),
        ("margin@50", 0.7),  # there are four
        ("entropy", float(stats.entropy(np.exp(SCORES.astype(float) / 0.05)))),
    ],
)
def test_the_value_of_each_signal(signal: str, value: float) -> None:
    assert sureness_of_value(signal, sureness(signal, SCORES)) == pytest.approx(value, abs=1e-6)
    assert GateConfig(signal=signal).signal == signal, "every signal can be configured"


@pytest.mark.parametrize("signal", ["top1", "margin", "margin@4", "entropy"])
def test_a_clear_winner_is_surer_than_a_tie(signal: str) -> None:
    clear, tied = np.array([0.9, 0.1, 0.1, 0.1]), np.array([0.5, 0.5, 0.5, 0.5])
    sure, unsure = (sureness(signal, each.astype(np.float32)) for each in (clear, tied))
    assert sure > unsure
    gate = Gate(signal, sureness_of_value(signal, (sure + unsure) / 2))
    assert gate.is_sure(clear.astype(np.float32))
    assert not gate.is_sure(tied.astype(np.float32))


@pytest.mark.parametrize("signal", ["top1", "margin", "margin@4", "entropy"])
@given(scores=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=60))
def test_a_query_right_at_the_threshold_is_skipped(signal: str, scores: list[float]) -> None:
    """What calibration measured as skipped, the job skips: the same number on both sides."""
    best_first = np.sort(np.array(scores, np.float32))[::-1]
    threshold = sureness_of_value(signal, sureness(signal, best_first))
    assert np.isfinite(threshold)
    assert Gate(signal, threshold).is_sure(best_first)


@pytest.mark.parametrize("scores", [[], [0.3]])
def test_a_query_with_nothing_to_reorder_is_skipped(scores: list[float]) -> None:
    assert Gate("margin", 2.0).is_sure(np.array(scores, np.float32))
    assert Gate("entropy", 0.0).is_sure(np.array(scores, np.float32))
