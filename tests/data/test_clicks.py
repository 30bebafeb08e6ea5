"""Click labels: unbiased under the model they state, careful with chance, never judgements."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_batch.config import (
    ClicksConfig,
    PropensityConfig,
    QueriesConfig,
    parse_config,
    results_settings,
)
from rerank_batch.data.clicks import LIMITS, ClickLabels, read_clicks
from rerank_batch.data.clicks.grades import estimate, lower_bound
from rerank_batch.data.clicks.log import read_click_log
from rerank_batch.data.clicks.propensity import harvest_eta, propensity_of
from rerank_batch.errors import ConfigError, InputError, TooManyRejects
from rerank_batch.evaluation.ground_truth import ground_truth_files, read_ground_truth
from rerank_batch.sample.clicks import simulate_clicks
from rerank_batch.sample.query_log import Query
from tests.support.helpers import broken_strings, write_parquet

SEED = 7


def shown(query: Any, document: Any, position: Any, clicked: Any, **more: Any) -> dict[str, Any]:
    row = {"query_id": query, "doc_id": document, "position": position, "clicked": clicked}
    return {**row, **more}


def impressions(document: str, position: int, number: int, clicks: int) -> list[dict[str, Any]]:
    rows = [
        shown("q1", document, position, 1, count=clicks),
        shown("q1", document, position, 0, count=number - clicks),
    ]
    return [row for row in rows if row["count"]]


def log(path: Path, rows: list[dict[str, Any]], **options: Any) -> ClicksConfig:
    return ClicksConfig(path=str(write_parquet(path / "clicks.parquet", rows)), **options)


def read(path: Path, rows: list[dict[str, Any]], **options: Any) -> ClickLabels:
    return read_clicks(log(path, rows, **options))


def simulated(eta: float, pairs: int, number: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Counts of pairs that stood ``number`` times at each of three positions, and what attracts."""
    rng = np.random.default_rng(SEED)
    attractive = rng.uniform(0.05, 0.95, pairs)
    positions = np.array([rng.choice(np.arange(1, 11), 3, replace=False) for _ in range(pairs)])
    clicks = rng.binomial(number, attractive[:, None] * positions**-eta)
    names = [f"d{n:05d}" for n in range(pairs) for _ in range(3)]
    counts = {"query": ["q"] * len(names), "document": names, "position": positions.ravel()}
    numbers = {"impressions": [number] * len(names), "clicks": clicks.ravel()}
    return pl.DataFrame({**counts, **numbers}), attractive


def power(eta: Any = 1.0, clip: float = 100, counts: pl.DataFrame | None = None) -> Any:
    config = PropensityConfig(eta=eta, clip=clip)
    return propensity_of(config, pl.DataFrame() if counts is None else counts)


# --- the estimate ----------------------------------------------------------------------------


def test_under_the_model_the_estimate_is_unbiased_and_the_click_through_rate_is_not() -> None:
    counts, attractive = simulated(eta=1.0, pairs=4_000, number=40)
    pairs = estimate(counts, power(), confidence=0.95)
    errors = pairs["attractiveness"].to_numpy() - attractive
    # Five standard errors of the mean error, as the simulation itself scatters.
    tolerance = 5 * errors.std() / np.sqrt(len(errors))
    assert tolerance < 0.02
    for part in (attractive < 0.3, attractive > 0.7, attractive > 0):
        assert abs(errors[part].mean()) < tolerance * np.sqrt(len(errors) / part.sum())
    raw = (pairs["clicks"] / pairs["impressions"]).to_numpy() - attractive
    assert raw.mean() < -0.25


@pytest.mark.parametrize("places", [[1], [50], [2, 5, 40]])
@pytest.mark.parametrize("attractive", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_lower_bound_is_too_high_no_more_often_than_its_confidence_says(
    places: list[int], attractive: float, confidence: float
) -> None:
    """Of clicks as rare as they come, too: a normal approximation fails here."""
    examined, number, draws = 1 / np.array(places), 80, 20_000
    rng = np.random.default_rng(SEED)
    clicks = rng.binomial(number, attractive * examined, (draws, len(places))).sum(axis=1)
    shown, looks = np.full((2, draws), [[number * len(places)], [number * examined.sum()]])
    lower = lower_bound(shown, clicks.astype(float), looks, confidence)
    # 1.03: what the bound may be wrong of one click; 0.009: three standard errors of the draws.
    assert (lower > attractive).mean() < (1 - confidence) * 1.03 + 0.009


def test_a_lucky_click_far_down_is_no_grade(tmp_path: Path) -> None:
    rows = impressions("lucky", 50, 60, 1) + impressions("good", 2, 60, 20)
    rows += impressions("once", 50, 1, 1) + impressions("tenth", 10, 10, 1)
    labels = read(tmp_path, rows, propensity={"clip": 100}, min_impressions=1)
    assert labels.qrels == {"q1": {"lucky": 0, "good": 2, "tenth": 0}}


def test_eta_is_found_where_documents_moved() -> None:
    for eta in (0.0, 0.6, 1.4):
        counts, _ = simulated(eta, pairs=1_500, number=60)
        found = harvest_eta(counts)
        assert found.error < 0.02
        assert abs(found.eta - eta) < 4 * found.error
        assert f"{found.eta:.3f} ±" in power("estimate", counts=counts).words


def test_eta_is_not_guessed_where_the_log_does_not_tell_it(tmp_path: Path) -> None:
    estimated = {"propensity": {"eta": "estimate"}}
    fixed = impressions("a", 1, 100, 50) + impressions("b", 2, 100, 20)
    with pytest.raises(InputError, match="eta cannot be estimated: no document"):
        read(tmp_path, fixed, **estimated)
    with pytest.raises(InputError, match="too uncertain"):
        read(tmp_path, impressions("a", 1, 9, 3) + impressions("a", 2, 9, 2), **estimated)


def test_a_weight_is_clipped_and_the_share_is_told(tmp_path: Path) -> None:
    rows = impressions("top", 1, 300, 150) + impressions("deep", 20, 100, 5)
    clipped = log(tmp_path, rows, propensity={"clip": 4})
    counts = read_click_log(clipped, None).counts
    pairs = estimate(counts, propensity_of(clipped.propensity, counts), 0.95)
    # 5 clicks of 100 at position 20: 20 times 0.05 without the clip, 4 times with it.
    assert dict(pairs.select("document", "attractiveness").iter_rows()) == pytest.approx(
        {"deep": 0.2, "top": 0.5}
    )
    assert read_clicks(clipped).facts.clipped_share == 0.25
    assert read(tmp_path, rows, propensity={"clip": 20}).facts.clipped_share == 0.0


# --- grades ----------------------------------------------------------------------------------


def test_a_grade_is_the_number_of_thresholds_that_the_bound_reaches(tmp_path: Path) -> None:
    rows = [row for clicks in (0, 15, 40, 80) for row in impressions(f"d{clicks}", 1, 100, clicks)]
    labels = read(tmp_path, rows)
    assert labels.qrels == {"q1": {"d0": 0, "d15": 0, "d40": 2, "d80": 3}}
    assert labels.facts.grades == {0: 2, 2: 1, 3: 1}
    surer = read(tmp_path, rows, confidence=0.999, grades=[0.05, 0.3, 0.7])
    assert surer.qrels == {"q1": {"d0": 0, "d15": 1, "d40": 1, "d80": 2}}


def test_too_little_shown_is_unjudged_not_irrelevant(tmp_path: Path) -> None:
    rows = [
        *impressions("seldom", 1, 9, 9),
        *impressions("unseen", 50, 40, 0),
        *impressions("seen", 50, 60, 0),
        *impressions("top", 1, 10, 5),
    ]
    labels = read(tmp_path, rows)
    assert set(labels.qrels["q1"]) == {"seen", "top"}
    expected = {"too_few_impressions": 1, "too_few_examinations": 1}
    assert labels.facts.unlabelled == expected
    with pytest.raises(InputError, match=r"none of the 4 pairs .* 1000 impressions"):
        read(tmp_path, rows, min_impressions=1000)


# --- the log ---------------------------------------------------------------------------------


def test_every_row_is_counted_or_rejected_with_a_reason(tmp_path: Path) -> None:
    good = [row for row in impressions("d1", 1, 40, 20) for _ in range(2)]
    bad = {
        "missing_query_id": shown("", "d1", 1.0, 1),
        "missing_doc_id": shown("q1", None, 1.0, 1),
        "null_position": shown("q1", "d1", None, 1),
        "bad_position": [shown("q1", "d1", place, 1) for place in (-1.0, 0.0, 2.5, 1e300)],
        "null_clicked": shown("q1", "d1", 1.0, None),
        "bad_clicked": shown("q1", "d1", 1.0, 2),
        "bad_count": [shown("q1", "d1", 1.0, 1, count=count) for count in (0.5, -3.0)],
        "position_beyond_table": shown("q1", "d1", 4.0, 1),
    }
    rows = [{**row, "position": 1.0, "count": float(row["count"])} for row in good]
    for found in bad.values():
        for row in found if isinstance(found, list) else [found]:
            rows.append({"count": 1.0, **row})
    facts = read(tmp_path, rows, propensity={"model": "table", "table": [1, 0.5, 0.3]}).facts
    assert facts.rejects == {
        reason: len(found) if isinstance(found, list) else 1 for reason, found in bad.items()
    }
    assert (facts.rows, facts.rejected) == (len(rows), len(rows) - len(good))
    assert (facts.impressions, facts.clicks) == (80, 40)


def test_numbers_written_as_texts_are_read_and_words_rejected(tmp_path: Path) -> None:
    rows = [shown("q1", "d1", "1", "1"), *[shown("q1", "d1", "2", "0") for _ in range(20)]]
    facts = read(tmp_path, [*rows, shown("q1", "d1", "first", "0")]).facts
    assert facts.rejects == {"bad_position": 1}
    assert (facts.impressions, facts.clicks) == (21, 1)
    with pytest.raises(InputError, match="position column holds bool"):
        read(tmp_path, [shown("q1", "d1", True, 1)])


def test_ids_that_are_not_utf8_are_rejects(tmp_path: Path) -> None:
    ids = broken_strings([b"q1"] * 30 + [b"\xff"])
    columns = {"query_id": ids, "doc_id": ["d"] * 31, "position": [1] * 31}
    table = pa.table({**columns, "clicked": [n % 2 == 0 for n in range(31)]})
    pq.write_table(table, tmp_path / "clicks.parquet")
    labels = read_clicks(ClicksConfig(path=str(tmp_path)))
    assert labels.facts.rejects == {"invalid_query_id": 1}
    assert labels.qrels == {"q1": {"d": 2}}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([shown("q1", "d1", 0, 1), shown("q1", "d2", 1, 0)], "positions count from 0"),
        ([shown("q1", "d1", 1, 1)] * 20, "clicked impressions only"),
        ([shown("q1", "d1", 1, 0)] * 20, "no impression that was clicked"),
        ([shown("", "d1", 1, 0)] * 20, r"none of the 20 rows .*missing_query_id 20"),
    ],
)
def test_a_log_that_cannot_be_meant_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, rows)


def test_clicks_of_a_text_are_those_of_its_query(tmp_path: Path) -> None:
    queries = [("q2", "Mean of  X"), ("q1", "mean of x"), ("q3", "median")]
    planned = write_parquet(
        tmp_path / "queries.parquet", [{"query_id": i, "query": text} for i, text in queries]
    )
    rows = [
        {"query": text, "doc_id": "d1", "position": 1, "clicked": n % 2 == 0}
        for text in ("MEAN of x ", "mean\u00a0of x", "unknown")
        for n in range(10)
    ]
    clicks = log(tmp_path / "clicks", [*rows, {**rows[0], "query": "  "}])
    labels = read_clicks(clicks, QueriesConfig(path=str(planned)))
    assert labels.qrels == {"q1": {"d1": 2}}
    assert labels.facts.rejects == {"missing_query": 1, "query_not_in_log": 10}
    assert (labels.facts.impressions, labels.facts.joined_by) == (20, "text of the query")
    several = read_clicks(clicks, QueriesConfig(path=str(planned), dedupe=False))
    assert several.qrels == {"q1": {"d1": 2}, "q2": {"d1": 2}}
    with pytest.raises(ConfigError, match=r"no queries\.path"):
        read_clicks(clicks)


row = st.tuples(
    st.sampled_from(["q1", "q2"]),
    st.sampled_from(["d1", "d2", "d3"]),
    st.integers(1, 7),
    st.booleans(),
    st.integers(1, 5),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(row, min_size=1, max_size=25), shuffle=st.randoms())
def test_neither_order_nor_counting_nor_files_change_anything(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], shuffle: Any
) -> None:
    both = [("q1", "d1", 1, True, 1), ("q1", "d1", 3, False, 2)]
    counted = [shown(*row[:4], count=row[4]) for row in [*rows, *both]]
    single = [shown(*row[:4]) for row in [*rows, *both] for _ in range(row[4])]
    shuffle.shuffle(single)
    folder = tmp_path_factory.mktemp("clicks")
    options = {"min_impressions": 1, "min_examinations": 0.4, "confidence": 0.75}
    once = read(folder, counted, **options)
    write_parquet(folder / "cut" / "a.parquet", single[:3])
    write_parquet(folder / "cut" / "b.parquet", single[3:])
    cut = read_clicks(ClicksConfig(path=str(folder / "cut"), **options))
    assert cut.qrels == once.qrels
    assert vars(cut.facts) == {**vars(once.facts), "rows": len(single)}
    power_law = [1 / position for position in range(1, 8)]
    tabled = {"propensity": {"model": "table", "table": power_law}}
    assert read(folder, counted, **options, **tabled).qrels == once.qrels


def test_a_filter_chooses_rows(tmp_path: Path) -> None:
    rows = [{**row, "day": day} for day in (1, 2) for row in impressions(f"d{day}", 1, 20, 10)]
    assert read(tmp_path, rows, filter=[("day", "==", 2)]).qrels == {"q1": {"d2": 2}}
    with pytest.raises(InputError, match=r"no row of .* passes the filter"):
        read(tmp_path, rows, filter=[("day", "==", 3)])


def test_the_clicks_of_the_sample_tell_how_they_were_simulated(tmp_path: Path) -> None:
    corpus = [f"d{n:03d}" for n in range(300)]
    queries = [Query(f"q{n}", "text", (corpus[n],), "test") for n in range(200)]
    pq.write_table(simulate_clicks(queries, corpus, seed=0), tmp_path / "clicks.parquet")
    labels = read_clicks(ClicksConfig(path=str(tmp_path), propensity={"eta": "estimate"}))
    found = harvest_eta(read_click_log(ClicksConfig(path=str(tmp_path)), None).counts)
    assert abs(found.eta - 1) < 4 * found.error
    assert f"^{found.eta:.3f}" in labels.facts.propensity
    relevant = [labels.qrels[query.query_id].get(query.relevant[0], 0) for query in queries]
    assert np.mean(np.array(relevant) >= 2) > 0.8
    assert labels.facts.grades[0] > 0.9 * labels.facts.documents


# --- labels or judgements --------------------------------------------------------------------


def project(folder: Path, **more: Any) -> Any:
    rows = impressions("d1", 1, 40, 30) + impressions("d2", 3, 40, 0)
    clicks = write_parquet(folder / "clicks.parquet", rows)
    qrels = write_parquet(
        folder / "qrels.parquet", [{"query_id": "q1", "doc_id": "d2", "relevance": 1}]
    )
    return {
        "corpus": {"path": "corpus"},
        "index": {"path": "index", "encoder": "sentence-transformers:x"},
        "qrels": {"path": str(qrels)},
        "clicks": {"path": str(clicks)},
        **more,
    }


def test_clicks_and_judgements_are_never_mixed(tmp_path: Path) -> None:
    raw = project(tmp_path)
    judged = parse_config(raw)
    clicked = parse_config({**raw, "evaluation": {"labels": "clicks"}})
    by_judgement, by_click = read_ground_truth(judged), read_ground_truth(clicked)
    assert by_judgement is not None and by_click is not None
    assert by_judgement.qrels == {"q1": {"d2": 1}}
    assert by_judgement.clicks is None
    assert by_judgement.words == "measured against judgements"
    assert by_click.qrels == {"q1": {"d1": 3, "d2": 0}}
    assert by_click.clicks is not None and by_click.clicks.limits == LIMITS
    assert "click labels, not judgements (1 queries, 2 pairs" in by_click.words
    assert ground_truth_files(judged) != ground_truth_files(clicked)
    assert read_ground_truth(parse_config({**raw, "qrels": None})) is None


def test_clicks_belong_to_the_identity_of_a_run_only_where_they_are_labels(tmp_path: Path) -> None:
    def identity(**more: Any) -> Any:
        return results_settings(parse_config({**project(tmp_path), **more}))

    other = {"path": "x", "min_impressions": 3}
    assert identity() == identity(clicks=other) == identity(clicks=None)
    by_clicks = {"evaluation": {"labels": "clicks"}}
    assert identity(**by_clicks) != identity()
    assert identity(**by_clicks) != identity(**by_clicks, clicks=other)
    moved = {**project(tmp_path)["clicks"], "path": "elsewhere"}
    assert identity(**by_clicks) == identity(**by_clicks, clicks=moved, qrels=None)


def test_a_log_that_is_mostly_rejected_stops_the_run(tmp_path: Path) -> None:
    rows = [*impressions("d1", 1, 40, 30), shown("q1", "d1", -1, 1, count=1)]
    path = str(write_parquet(tmp_path / "c" / "clicks.parquet", rows))
    raw = project(tmp_path, clicks={"path": path}, evaluation={"labels": "clicks"})
    with pytest.raises(TooManyRejects, match=r"1 of 3 rows of the click log .*bad_position 1"):
        read_ground_truth(parse_config(raw))
    assert read_ground_truth(parse_config({**raw, "limits": {"max_rejects": 1}})) is not None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"clicks": None, "evaluation": {"labels": "clicks"}}, r"needs clicks\.path"),
        ({"clicks": {"path": "c", "grades": [0.3, 0.1]}}, "grades must rise"),
        ({"clicks": {"path": "c", "id": "a", "text": "b"}}, "give id or text"),
        ({"clicks": {"path": "c", "propensity": {"table": [1]}}}, "go together"),
        ({"clicks": {"path": "c", "propensity": {"model": "table"}}}, "go together"),
        (
            {"clicks": {"path": "c", "propensity": {"model": "table", "table": [1], "eta": 2}}},
            "eta belongs to the power model",
        ),
        (
            {"clicks": {"path": "c", "propensity": {"eta": "auto"}}},
            r"clicks\.propensity\.eta: 'estimate' or a number from 0 to 5 \(got 'auto'\)",
        ),
        ({"clicks": {"path": "c", "propensity": {"etta": 1}}}, "did you mean 'eta'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_config(project(tmp_path, **more))
