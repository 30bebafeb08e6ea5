"""Lines through two measured nights tell what a third one takes, where nights do follow lines."""

from dataclasses import replace

import pytest

from rerank_batch.benchmarks.projection import Law, Line, Models, Night, Nodes, project

NODES = Nodes(cpus=8, memory_gb=32, price=0.5, hours=4)


def night(documents: int, queries: int, depth: int = 20) -> Night:
    """A night of a machine with two cores that keeps to the law."""
    pairs = queries * depth
    cores = {
        "encode": 0.001 * queries,
        "retrieve": queries * (0.0005 + 2e-8 * documents),
        "rerank": 0.0004 * pairs,
    }
    return Night(
        documents=documents,
        queries=queries,
        pairs=pairs,
        gated=0,
        cpus=2,
        build=12 + 0.0003 * documents,
        run=15 + sum(cores.values()) / 1.6,
        cores=cores,
        build_memory_gb=1,
        run_memory_gb=1,
        index_bytes=1_000 * documents,
        run_bytes=0,
        update=0,
        again=0,
        again_pairs=0,
        again_cores={},
    )


LAW = Law.through(night(10_000, 1_000), night(40_000, 4_000))


def test_a_larger_night_is_told_from_two_small_ones():
    large = night(1_000_000, 50_000)
    assert LAW.build.at(large.documents) == pytest.approx(large.build)
    assert LAW.run(large.documents, large.queries, large.pairs) == pytest.approx(large.run)
    assert LAW.index_bytes.at(large.documents) == pytest.approx(large.index_bytes)


def test_what_grows_with_documents_is_not_mistaken_for_what_grows_with_queries():
    """Ten times the documents under the same queries: only comparing vectors takes longer."""
    before, after = night(100_000, 10_000), night(1_000_000, 10_000)
    more = LAW.cores(1_000_000, 10_000, before.pairs) - LAW.cores(100_000, 10_000, before.pairs)
    assert more == pytest.approx(after.cores["retrieve"] - before.cores["retrieve"])


def test_noise_never_makes_a_start_or_a_slope_negative():
    assert Line.through((1, 5.0), (2, 4.0)) == Line(4.5, 0)
    assert Line.through((1, 1.0), (4, 8.0)) == Line(0, 2.0)


def test_there_are_as_many_nodes_as_end_the_night_in_time():
    found = project(LAW, NODES, 100_000_000, 1_000_000, 20, None)
    assert found.run_hours <= NODES.hours
    assert found.run_price == pytest.approx(found.run_hours * found.nodes * NODES.price)
    fewer = (found.run_hours - 15 / 3600) * found.nodes / (found.nodes - 1) + 15 / 3600
    assert fewer > NODES.hours, "one node fewer would have done"


def test_an_index_that_one_node_cannot_hold_asks_for_more_of_them():
    small = replace(NODES, memory_gb=2)
    found = project(LAW, small, 10_000_000, 100, 20, None)
    assert found.index_gb == pytest.approx(10 / 1.073741824)
    assert found.nodes == 10


def test_the_models_of_a_user_come_on_top():
    light = project(LAW, NODES, 1_000_000, 100_000, 20, None)
    found = project(LAW, NODES, 1_000_000, 100_000, 20, Models(1_000, 500))
    assert (found.build_hours - light.build_hours) * 3600 == pytest.approx(1_000)
    assert (found.run_hours - light.run_hours) * 3600 == pytest.approx(4_000)


def test_a_night_shorter_than_its_start_is_refused():
    with pytest.raises(ValueError, match="to start"):
        project(LAW, replace(NODES, hours=0.001), 1_000, 10, 20, None)
