"""Segments and merges: a look-up is that of a dictionary, whatever was merged in which slices."""

import hashlib
import tracemalloc
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.score_cache import CachedScores, ScoreSegment, merge, scope, text_keys
from rerank_batch.score_cache.measure import make_segment, measure_lookups
from rerank_batch.score_cache.writer import SCHEMA
from tests.score_cache.pairs import (
    KEYS,
    TWENTY,
    Block,
    Key,
    Row,
    ask,
    bad_offset,
    block,
    content,
    keys_of,
    model,
    write,
    write_all,
)


def random_block(seed: int, queries: int, documents: int) -> Block:
    random = Random(seed)

    def key() -> Key:
        return random.getrandbits(64), random.getrandbits(64)

    rows = [
        Row(query, key(), random.uniform(-9, 9), random.random() < 0.5)
        for query in [key() for _ in range(queries)]
        for _ in range(random.randint(1, documents))
    ]
    random.shuffle(rows)
    return Block(rows, 1)


def ask_for(finder: ScoreSegment | CachedScores, rows: list[Row]) -> list[tuple[bool, bytes, bool]]:
    answer = finder.find(
        keys_of(row.query for row in rows),
        np.arange(len(rows)),
        keys_of(row.document for row in rows),
    )
    return [(bool(f), s.tobytes(), bool(t)) for f, s, t in zip(*answer, strict=True)]


def truth(rows: list[Row]) -> list[tuple[bool, bytes, bool]]:
    return [(True, np.float32(row.score).tobytes(), row.truncated) for row in rows]


# --- keys --------------------------------------------------------------------------------------


def test_a_key_is_the_hash_of_the_text() -> None:
    texts = ["", "a", "é", "e\u0301", "😀", "\ud83d", "\ude00", "\ud83d\ude00", "a\0", "a" * 10_000]
    keys = text_keys(texts)
    assert keys.dtype == np.uint64
    assert keys.shape == (10, 2)
    assert len({tuple(key) for key in keys.tolist()}) == 10
    assert text_keys([]).shape == (0, 2)
    assert text_keys(["a", "a"]).tolist() == [keys[1].tolist()] * 2
    # Pinned: with other keys nothing that was stored is ever found again.
    digest = hashlib.blake2b("é".encode(), digest_size=16).hexdigest()
    assert keys[2].tobytes().hex() == digest == "d4b1b0202b21bb84e60a3d272ecab0db"


def test_a_scope_is_the_settings_whatever_their_order() -> None:
    settings = {"model": "é", "max_length": None, "dtype": {"a": 1, "b": 2}}
    name = scope(settings)
    assert name == scope(dict(reversed(settings.items())))
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert len({name, scope({}), scope({**settings, "max_length": 512})}) == 3


# --- a segment is a dictionary -----------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(block, max_size=4))
def test_a_look_up_is_that_of_a_dictionary_and_the_first_file_counts(blocks: list[Block]) -> None:
    with TemporaryDirectory() as folder:
        segments = [ScoreSegment(file) for file in write_all(Path(folder), blocks)]
        for each, segment in zip(blocks, segments, strict=True):
            assert ask(segment) == model([each])
            assert segment.pairs == len(model([each]))
        assert ask(CachedScores(segments)) == model(blocks)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(block, max_size=6), st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.data()
)
def test_a_merge_holds_what_its_parts_hold_however_it_is_sliced_and_nested(
    blocks: list[Block], limit: int, start: int, stop: int, data: st.DataObject
) -> None:
    oldest_day = data.draw(st.integers(0, 5))
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        files = write_all(folder, blocks)
        whole = folder / "whole.arrow"
        days = merge(files, whole, oldest_day)
        expected = model(blocks, oldest_day)
        assert ask(ScoreSegment(whole)) == expected
        rows = content(whole)
        kept = [pair["day"] for row in rows for pair in row["pairs"]]
        assert days == {day: kept.count(day) for day in kept}
        queries = [(row["query_hi"], row["query_lo"]) for row in rows]
        assert queries == sorted(set(queries))
        for row in rows:
            documents = [(pair["document_hi"], pair["document_lo"]) for pair in row["pairs"]]
            assert documents == sorted(set(documents)) != []

        sliced, part, nested = (folder / f"{each}.arrow" for each in ("sliced", "part", "nested"))
        merge(files, sliced, oldest_day, limit)
        assert content(sliced) == rows
        assert ask(ScoreSegment(sliced)) == expected
        # Neighbours first, as the store does, and two at a time, as for many files.
        patch.setattr("rerank_batch.score_cache.merging._AT_ONCE", 2)
        merge(files[start:stop], part, oldest_day, limit)
        neighbours = [*files[:start], part, *files[max(start, stop) :]]
        merge(neighbours, nested, oldest_day, limit)
        assert content(nested) == rows


def test_batches_end_anywhere(tmp_path: Path) -> None:
    """Every query is found in its batch: first, last, and between two batches."""
    one, two = random_block(1, 300, 9), random_block(2, 50, 30)
    target = tmp_path / "merged.arrow"
    merge([write(tmp_path / "1", one), write(tmp_path / "2", two)], target, limit=40)
    segment = ScoreSegment(target)
    assert segment.batches > 30
    assert ask_for(segment, [*one.rows, *two.rows]) == truth([*one.rows, *two.rows])
    strangers = random_block(3, 300, 9).rows
    swapped = [
        Row(row.query, other.query, 0) for row, other in zip(one.rows, strangers, strict=False)
    ]
    for absent in (strangers, swapped):
        assert not any(found for found, _, _ in ask_for(segment, list(absent)))
    assert segment.find(keys_of([]), np.arange(0), keys_of([])).found.shape == (0,)


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_nothing_is_written(tmp_path: Path, score: float) -> None:
    file = tmp_path / "block.arrow"
    with pytest.raises(RerankBatchError, match="not finite"):
        write(file, Block([Row(KEYS[0], KEYS[1], 1.0), Row(KEYS[0], KEYS[2], score)], 1))
    assert not file.exists()


# --- damage ------------------------------------------------------------------------------------


def test_a_truncated_segment_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "segment.arrow", random_block(1, 20, 5))
    whole = file.read_bytes()
    for size in [0, 1, 8, 100, len(whole) // 2, *range(len(whole) - 40, len(whole))]:
        file.write_bytes(whole[:size])
        with pytest.raises(StorageError, match=r"segment\.arrow is no whole file of scores"):
            ScoreSegment(file)
    file.unlink()
    with pytest.raises(StorageError, match=r"segment\.arrow is no whole file of scores: .*No such"):
        ScoreSegment(file)


def test_wrong_bytes_are_an_error_or_a_miss_never_another_pairs_score(tmp_path: Path) -> None:
    """Bytes of scores themselves are what the sha256 of a segment is for."""
    random = Random(7)
    rows = list(random_block(1, 20, 5).rows)
    strangers = list(random_block(2, 50, 2).rows)
    merge([write(tmp_path / "block", Block(rows, 1))], tmp_path / "merged", limit=20)
    whole = (tmp_path / "merged").read_bytes()
    outcomes = {"error": 0, "answer": 0}
    for number in range(1500):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(whole))] = random.choice([0, 1, 127, 255])
        file = tmp_path / f"{number}"
        file.write_bytes(damaged)
        try:
            segment = ScoreSegment(file)
            ask_for(segment, rows)
            assert not any(found for found, _, _ in ask_for(segment, strangers))
            outcomes["answer"] += 1
            merge([file], tmp_path / "again", limit=20)
        except StorageError as error:
            assert str(file) in str(error)
            outcomes["error"] += 1
        file.unlink()
    assert min(outcomes.values()) > 100


@pytest.mark.parametrize("kind", ["columns", "compressed", "order", "empty batch"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / "good.arrow", random_block(1, 20, 5))
    table = pa.ipc.open_file(str(file)).read_all()
    batches = {
        "columns": [table.drop_columns("query_lo")],
        "compressed": [table],
        "order": [table.slice(10), table.slice(0, 10)],
        "empty batch": [table, table.slice(0, 0)],
    }[kind]
    options = pa.ipc.IpcWriteOptions(compression="zstd" if kind == "compressed" else None)
    other = str(tmp_path / "other.arrow")
    with pa.ipc.new_file(other, batches[0].schema, options=options) as writer:
        for each in batches:
            listed = each.combine_chunks().to_batches()
            writer.write_batch(listed[0] if listed else pa.RecordBatch.from_pylist([], SCHEMA))
    with pytest.raises(StorageError, match=r"other\.arrow is no whole file of scores"):
        ScoreSegment(Path(other))


def test_a_target_that_cannot_be_written_is_named_and_a_failed_merge_leaves_none(
    tmp_path: Path,
) -> None:
    good = write(tmp_path / "good", random_block(1, 9, 9))
    bad = bad_offset(write(tmp_path / "bad", Block(TWENTY, 1)))
    with pytest.raises(StorageError, match=r"cannot write scores to .*/nowhere/x"):
        merge([good], tmp_path / "nowhere" / "x")
    with pytest.raises(StorageError, match=f"{bad} is no whole file"):
        merge([good, bad], tmp_path / "target", limit=5)
    assert not (tmp_path / "target").exists()


# --- memory ------------------------------------------------------------------------------------


def test_a_segment_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    file, pairs = tmp_path / "large.arrow", 3_000_000
    make_segment(file, pairs)
    process = psutil.Process()
    before = process.memory_info()
    segment = ScoreSegment(file)
    after = process.memory_info()
    assert file.stat().st_size > 70e6
    assert after.rss - before.rss < 10e6
    assert segment.pairs == pairs
    measured = measure_lookups(file, pairs, hits=0.5, windows=10)
    assert measured["own_bytes"] < 20e6
    assert measured["mapped_bytes"] < 10e6
    assert measured["bytes_per_pair"] < 24


def test_a_merge_takes_memory_by_its_limit_not_by_its_files(tmp_path: Path) -> None:
    files = [tmp_path / "1", tmp_path / "2"]
    for seed, file in enumerate(files):
        make_segment(file, 400_000 if seed else 50_000, seed)
    tracemalloc.start()
    try:
        days = merge(files, tmp_path / "merged", limit=8_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert days == {20_000: 450_000}
    assert peak < 3e6
    for seed, pairs in enumerate((50_000, 400_000)):
        segment = measure_lookups(tmp_path / "merged", pairs, hits=1.0, windows=2, seed=seed)
        assert segment["pairs_per_second"] > 0
