"""The trade-off of a gate: what is skipped, what is lost, and how sure that is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from rerank_batch.evaluation.gate.chart import HEIGHT, gate_view
from rerank_batch.evaluation.gate.study import FEWEST, GateStudy, OwnGate, study_gates
from rerank_batch.evaluation.gate.threshold import upper_bound
from rerank_batch.remarks import NotKnown


def study(sure, before, after, own: OwnGate | None = None) -> GateStudy:
    arrays = [np.array(each, float) for each in (sure, before, after)]
    found = study_gates("nDCG@10", {"margin": arrays[0]}, *arrays[1:], own)
    assert isinstance(found, GateStudy)
    return found


def test_the_surest_queries_keep_the_order_of_retrieval() -> None:
    """Twenty queries, surest last; the reranker gains 0.2 on the ten that are least sure."""
    sure = np.arange(20.0)
    before = np.full(20, 0.5)
    after = before + 0.2 * (sure < 10)
    found = study(sure, before, after)
    points = found.curves[0].points
    assert [point.skipped for point in points] == pytest.approx(np.arange(21) / 20)
    assert [point.value for point in points] == pytest.approx(
        [0.6] * 11 + [0.6 - 0.01 * n for n in range(1, 11)]
    )
    assert points[12].loss == pytest.approx(0.02)
    losses = np.where(sure >= 8, after - before, 0)
    assert points[12].bound == upper_bound(losses, 0.95)
    assert found.curves[0].safe.skipped == 0.5
    assert found.at_random(0.5) == pytest.approx(0.55)
    assert found.in_words() == (
        "By margin the surest 50 % of the queries can keep the order of retrieval: nDCG@10 is "
        "0.6000 instead of 0.6000, and with 95 % confidence nothing is lost. As many drawn at "
        "random give 0.5500.",
    )


values = nps.arrays(float, st.shared(st.integers(FEWEST, 60), key="n"), elements=st.floats(0, 1))
sureness = nps.arrays(
    float,
    st.shared(st.integers(FEWEST, 60), key="n"),
    elements=st.floats(0, 1) | st.sampled_from([np.inf, -np.inf, 0.5]),
)


@settings(max_examples=50, deadline=None)
@given(sureness, values, values, st.randoms(use_true_random=False))
def test_curves_run_from_the_reranker_to_retrieval_whatever_the_order(
    sure, before, after, random
) -> None:
    found = study(sure, before, after)
    points = found.curves[0].points
    assert points[0].skipped == 0 and points[-1].skipped == 1
    assert points[0].value == pytest.approx(after.mean()) == found.reranked
    assert points[-1].value == pytest.approx(before.mean()) == found.retrieval
    shares = [point.skipped for point in points]
    assert shares == sorted(set(shares)) and len(shares) <= 21
    assert all(point.bound >= point.loss - 1e-12 for point in points)
    order = random.sample(range(len(sure)), len(sure))
    others = study(sure[order], before[order], after[order]).curves[0].points
    assert [point.skipped for point in others] == shares
    assert [point.value for point in others] == pytest.approx([point.value for point in points])


def test_equally_sure_queries_are_skipped_together() -> None:
    found = study([0.5] * 30 + [0.1] * 10, np.zeros(40), np.ones(40))
    assert [point.skipped for point in found.curves[0].points] == [0, 0.75, 1]


def test_the_gate_of_the_configuration_stands_where_its_threshold_is() -> None:
    sure = np.arange(40.0)
    own = OwnGate("margin", 30.0, "margin at least 30")
    found = study(sure, np.zeros(40), np.ones(40), own)
    assert found.curves[0].own is not None
    assert found.curves[0].own.skipped == 0.25
    assert found.in_words()[1].startswith(
        "The gate of the configuration (margin at least 30) would skip 25 %: nDCG@10 would be "
        "0.7500, and with 95 % confidence at most 0."
    )
    assert found.in_words()[0].startswith("On these 40 queries no signal can skip 5 % of them")


def test_a_signal_that_knows_better_can_skip_more_than_chance() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    before = np.full(400, 0.5)
    after = before + 0.3 * (hard > 0.6)
    found = study_gates("RR", {"blind": rng.random(400), "knowing": 1 - hard}, before, after)
    assert isinstance(found, GateStudy)
    blind, knowing = found.curves
    assert knowing.safe.skipped > 0.5 > blind.safe.skipped
    assert all(
        point.value == pytest.approx(found.at_random(point.skipped), abs=0.02)
        for point in blind.points
    )


def test_a_loss_that_is_small_by_chance_is_not_safe() -> None:
    """The mean loss is nothing at all, but gains go up and down by 0.5."""
    found = study(np.arange(40), np.full(40, 0.5), np.tile([0.0, 1.0], 20))
    assert abs(found.curves[0].points[2].loss) < 1e-12
    assert found.curves[0].safe.skipped == 0


def test_where_the_reranker_does_harm_every_query_can_do_without_it() -> None:
    found = study(np.arange(40), np.full(40, 0.6), np.linspace(0.4, 0.6, 40))
    assert found.in_words()[0] == (
        "Every query can keep the order of retrieval: nDCG@10 is 0.6000 instead of 0.5000, and "
        "with 95 % confidence nothing is lost."
    )


def test_few_queries_are_refused_in_words() -> None:
    found = study_gates("RR", {"margin": np.zeros(19)}, np.zeros(19), np.ones(19))
    assert found == NotKnown("it has 19 judged queries, and 20 at least are needed")


def test_drawings_hold_every_line_and_equal_systems_are_a_level_one() -> None:
    rng = np.random.default_rng(1)
    view = gate_view(study(rng.random(50), rng.random(50), rng.random(50)))
    panel = view.panels[0]
    places = [
        float(y) for path in (panel.line, panel.bound) for y in path[1:].replace("L", " ").split()
    ][1::2]
    assert min(places) >= 0 and max(places) <= HEIGHT
    half = len(places) // 2
    assert all(below >= y for y, below in zip(places[:half], places[half:], strict=True))
    assert [level.y for level in view.levels][-1] == 0
    flat = gate_view(study(np.arange(20), np.full(20, 0.5), np.full(20, 0.5)))
    assert len({mark.y for mark in flat.panels[0].marks}) == 1
