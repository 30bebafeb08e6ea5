"""An index that was updated is the index of the new corpus; and what an update leaves alone."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, IndexMismatch, StorageError
from rerank_batch.index.configured import open_index
from rerank_batch.index.generations import read_manifest
from rerank_batch.index.open import verify_files
from rerank_batch.retrieval.excluded import read_excluded
from rerank_batch.retrieval.given import read_given
from rerank_batch.runs import Run
from rerank_batch.storage import folder as storage_folder
from rerank_batch.storage import open_root
from rerank_batch.workflows import index_steps
from rerank_batch.workflows.inputs import read_inputs
from tests.conftest import sentences
from tests.support.helpers import finish, plan_table, reject_table, spec, write_all
from tests.support.index_in_process import (
    ENCODED,
    build,
    configured,
    found,
    opened,
    without_ray,
    write_corpus,
)

QUERIES = ["alpha beta", "river stone", "t", "omega omega"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text("{}")
    save_file({"none": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    ENCODED.clear()


@pytest.fixture
def config(tmp_path: Path, model: Path) -> Config:
    """An index of 60 documents in three shards, built."""
    write_corpus(tmp_path, sixty())
    config = configured(tmp_path, model, shards=3)
    build(config)
    ENCODED.clear()
    return config


def sixty() -> dict[str, str]:
    return {f"d{n:02d}": text for n, text in enumerate(sentences(60, seed=1))}


def edited() -> dict[str, str]:
    """Two new, one changed, three gone."""
    documents = {**sixty(), "d100": "new one", "a0": "new two", "d30": "other words"}
    for gone in ("d05", "d06", "d59"):
        del documents[gone]
    return documents


def files_of(config: Config) -> dict[str, tuple[int, int]]:
    """Of every file of the index its time of writing and its inode."""
    place = Path(config.index.path)
    files = [f for f in place.rglob("*") if f.is_file() and not f.name.startswith(".")]
    stats = {str(file.relative_to(place)): file.stat() for file in files}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}


def fresh(config: Config) -> Config:
    """The same with another place for its index, where it is built in full."""
    index = config.index.model_copy(update={"path": f"{config.index.path}-fresh"})
    config = config.model_copy(update={"index": index})
    build(config)
    return config


IDS = st.integers(0, 14).map(lambda n: f"d{n:02d}")
TEXTS = st.sampled_from(["alpha beta", "alpha", "beta beta stone", "river", "stone river alpha"])
EDITS = st.dictionaries(IDS, st.none() | TEXTS, min_size=1, max_size=4)
"""What an id's text becomes; None: it is deleted, if it is there."""


@settings(max_examples=8, deadline=None)
@given(
    first=st.dictionaries(IDS, TEXTS, min_size=8, max_size=15),
    edits=st.lists(EDITS, min_size=1, max_size=4),
    shards=st.integers(1, 4),
    compact_at=st.sampled_from([0.0, 0.25, 0.9]),
)
def test_any_updates_end_in_what_a_full_build_gives(
    tmp_path_factory: pytest.TempPathFactory,
    model: Path,
    first: dict[str, str],
    edits: list[dict[str, str | None]],
    shards: int,
    compact_at: float,
) -> None:
    """Ids, the order of ties and the last bit of every score, of vectors and of words; and the
    files of BM25 to the last byte."""
    states = [first]
    for edit in edits:
        after = {key: text for key, text in {**states[-1], **edit}.items() if text is not None}
        states.append(after or first)
    folder = tmp_path_factory.mktemp("corpus")
    config = configured(folder, model, shards=shards, compact_at=compact_at)
    for documents in states:
        write_corpus(folder, documents)
        build(config)
    fresh = configured(folder, model, "fresh", shards=shards)
    build(fresh)
    updated, whole = opened(config), opened(fresh)
    verify_files(updated)
    assert updated.manifest.made_of == whole.manifest.made_of
    for depth in (1, 4, 20):
        assert found(updated, QUERIES, depth) == found(whole, QUERIES, depth)
    postings = [
        [words.postings.sha256 for words in index.manifest.word_shards()]
        for index in (updated, whole)
    ]
    assert postings[0] == postings[1]
    numbers = np.arange(len(documents))
    assert updated.texts().contents(numbers) == whole.texts().contents(numbers)
    assert updated.texts().numbers(sorted(documents)).tolist() == numbers.tolist()


def test_only_what_changed_is_encoded_and_unchanged_shards_are_not_written(
    config: Config, tmp_path: Path
) -> None:
    before, files = opened(config).manifest, files_of(config)
    write_corpus(tmp_path, edited())
    told = build(config, dry_run=True)
    assert files_of(config) == files, "a dry run writes nothing"
    summary = build(config)
    assert sorted(ENCODED) == ["t new one", "t new two", "t other words"]
    assert summary["changes"] == {"added": 2, "updated": 1, "deleted": 3, "unchanged": 56}
    assert (summary["encoded"], summary["shards_reused"], summary["shards_written"]) == (3, 3, 1)
    assert summary["built"] and summary["documents"] == 59 and summary["dropped"] == {}
    alike = ("changes", "encoded", "shards_reused", "shards_written", "documents", "shards")
    assert {key: told[key] for key in alike} == {key: summary[key] for key in alike}
    assert told["dry_run"] and not told["built"]
    after = opened(config).manifest
    for old, new in zip(before.shards, after.shards, strict=False):
        assert (new.vectors, new.texts, new.digests) == (old.vectors, old.texts, old.digests)
    kept = {file.key for shard in before.shards for file in (shard.vectors, shard.texts)}
    assert {name: files_of(config)[name] for name in kept} == {name: files[name] for name in kept}
    assert found(opened(config), QUERIES, 60) == found(opened(fresh(config)), QUERIES, 60)
    assert not build(config)["built"], "the index is up to date"


def test_documents_that_go_are_masked_and_nothing_is_encoded(
    config: Config, tmp_path: Path
) -> None:
    documents = sixty()
    for gone in ("d00", "d10", "d33"):
        del documents[gone]
    write_corpus(tmp_path, documents)
    summary = build(config)
    assert (summary["encoded"], summary["shards_written"], ENCODED) == (0, 0, [])
    assert found(opened(config), QUERIES, 60) == found(opened(fresh(config)), QUERIES, 60)


def test_a_shard_with_too_many_masked_rows_is_written_anew_without_encoding(
    config: Config, tmp_path: Path
) -> None:
    """Eight of the twenty rows of the first shard go: more than a quarter."""
    write_corpus(tmp_path, {key: text for key, text in sixty().items() if key > "d07"})
    summary = build(config)
    assert (summary["encoded"], summary["shards_reused"], summary["shards_written"]) == (0, 2, 1)
    assert {stop - start for start, stop in opened(config).manifest.bounds} == {12, 20}
    assert found(opened(config), QUERIES, 60) == found(opened(fresh(config)), QUERIES, 60)


def test_the_same_documents_in_other_files_keep_all_there_is(
    config: Config, tmp_path: Path
) -> None:
    before = opened(config).manifest
    documents = sixty()
    write_corpus(tmp_path, dict(reversed(documents.items())))
    summary = build(config)
    assert summary["changes"] == {"added": 0, "updated": 0, "deleted": 0, "unchanged": 60}
    after = opened(config).manifest
    assert after.made_of != before.made_of
    assert after.numbering is None
    assert after.word_shards() == before.word_shards()


def test_many_updates_leave_few_shards(tmp_path: Path, model: Path) -> None:
    """As many small shards as the number of updates has binary digits, not as there are updates."""
    documents = {f"d{n:03d}": text for n, text in enumerate(sentences(400, seed=1))}
    config = configured(tmp_path, model, bm25=None)
    write_corpus(tmp_path, documents)
    build(config)
    for number in range(12):
        documents[f"e{number}"] = f"new {number}"
        write_corpus(tmp_path, documents)
        build(config)
        assert len(opened(config).manifest.shards) <= 1 + (number + 1).bit_length()
    assert len(ENCODED) == 412
    assert found(opened(config), QUERIES, 50) == found(opened(fresh(config)), QUERIES, 50)


@pytest.mark.parametrize("kind", ["HNSW", "IVF"])
def test_an_approximate_index_is_updated_too(tmp_path: Path, model: Path, kind: str) -> None:
    """Its shards stay, new documents are in a Flat one, and no document that is gone comes back."""
    texts = sentences(300, seed=1)
    documents = {f"d{n:03d}": f"{n:05d} {text}" for n, text in enumerate(texts)}
    config = configured(tmp_path, model, kind=kind, bm25=None)
    write_corpus(tmp_path, documents)
    assert build(config)["recall_at_100"] is not None
    gone = {f"d{n:03d}" for n in range(0, 300, 7)}
    after = {key: text for key, text in documents.items() if key not in gone} | {"e": "99999"}
    write_corpus(tmp_path, after)
    summary = build(config)
    assert (summary["shards_reused"], summary["encoded"]) == (1, 1)
    assert summary["recall_at_100"] is None, "what was measured is not of this index"
    queries = ["00000", "00007", "99999", "t 999"]
    for listed in found(opened(config), queries, len(after))["dense"]:
        assert {name for name, _ in listed} == set(after)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"kind": "HNSW"}, "another kind"),
        ({"shards": 2}, "another shards"),
        ({"max_length": 32}, "another max_length"),
    ],
)
def test_another_setting_is_a_full_build_and_says_so(
    config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    setting: dict[str, Any],
    why: str,
) -> None:
    write_corpus(tmp_path, edited())
    other = config.model_copy(update={"index": config.index.model_copy(update=setting)})
    assert build(other, dry_run=True)["encoded"] == build(other)["encoded"] == 59
    assert f"is built in full: it was built with {why}" in capsys.readouterr().err


def test_a_damaged_shard_is_not_built_upon(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = Path(config.index.path) / opened(config).manifest.shards[0].texts.key
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    write_corpus(tmp_path, edited())
    assert build(config)["encoded"] == 59
    assert "sha256 differs" in capsys.readouterr().err


class Died(BaseException):
    """The job at the moment of its death."""


def test_an_update_that_dies_anywhere_leaves_the_old_index_and_is_done_by_the_next(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its writes in turn, until it gets through."""
    write_corpus(tmp_path, sixty())
    config = configured(tmp_path, model, shards=2, bm25=None)
    build(config)
    old, before = found(opened(config), QUERIES, 60), opened(config).manifest
    write_corpus(tmp_path, edited())
    new = found(opened(fresh(config)), QUERIES, 60)
    shutil.copytree(config.index.path, tmp_path / "kept")
    whole = storage_folder.Folder
    left, deaths = 0, 0

    def mortal(name: str) -> Callable[..., Any]:
        write = getattr(whole, name)

        def die(self: Any, *arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Died
            return write(self, *arguments, **more)

        return die

    with monkeypatch.context() as patch:
        for name in ("publish", "create_once", "swap", "delete"):
            patch.setattr(whole, name, mortal(name))
        while True:
            left = deaths + 1
            try:
                build(config)
                break
            except Died:
                deaths += 1
            manifest = read_manifest(open_root(config.index.path))
            verify_files(opened(config))
            assert found(opened(config), QUERIES, 60) == (old if manifest == before else new)
            left = 0
            build(config)
            assert found(opened(config), QUERIES, 60) == new
            verify_files(opened(config))
            shutil.rmtree(config.index.path)
            shutil.copytree(tmp_path / "kept", config.index.path)
    assert deaths > 10


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_update(config: Config, tmp_path: Path, model: Path) -> None:
    old = found(opened(config), QUERIES, 60)
    write_corpus(tmp_path, edited())
    script = f"""
import os, signal, sys
from pathlib import Path
import pytest
from rerank_batch.workflows import index_steps
from tests.support.index_in_process import build, configured, without_ray
without_ray(pytest.MonkeyPatch())
index_steps.publish_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
build(configured(Path({str(tmp_path)!r}), Path({str(model)!r}), shards=3))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert found(opened(config), QUERIES, 60) == old
    build(config)
    assert found(opened(config), QUERIES, 60) == found(opened(fresh(config)), QUERIES, 60)


def begin(config: Config, run_id: str) -> Run:
    """A run that began on the index as it is, and died."""
    root = open_root(config.root)
    run = Run.create(root, run_id, replace(spec(), generations=opened(config).generations()))
    run.write_plan(plan_table(10), reject_table())
    return run


def test_what_unfinished_runs_began_on_stays_until_they_are_done(
    config: Config, tmp_path: Path
) -> None:
    first = found(opened(config), QUERIES, 60)
    manifest = opened(config).manifest
    run = begin(config, "night-1")
    for number in range(4):
        write_corpus(tmp_path, {**sixty(), f"e{number}": "new"})
        build(config, force=number % 2 == 1)
    opened_then = open_index(config, run.spec.generations)
    assert opened_then.index.manifest == manifest
    assert opened_then.made_of == manifest.made_of, "its fingerprint is what it was"
    assert found(opened_then.index, QUERIES, 60) == first
    verify_files(opened_then.index)

    run.claim()
    write_all(run)
    finish(run)
    for number in range(2):
        write_corpus(tmp_path, {**sixty(), f"f{number}": "new"})
        build(config)
    names = {Path(name).stem for name in files_of(config) if name.startswith("generations/")}
    assert manifest.generation not in names
    assert len(names) == 2, "this one and the one before"
    current = opened(config).manifest
    before = read_manifest(open_root(config.index.path), (names - {current.generation}).pop())
    named = {file.key for each in (current, before) for file in each.files()}
    there = {name for name in files_of(config) if "/" in name and "generations" not in name}
    assert there == named, "nothing is left that nobody names"


def test_where_runs_cannot_be_read_nothing_of_the_index_is_removed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(_: Any) -> list[str]:
        raise StorageError("access denied")

    monkeypatch.setattr("rerank_batch.workflows.index_steps.list_runs", fail)
    names = set(files_of(config))
    for number in range(3):
        write_corpus(tmp_path, {**sixty(), f"e{number}": "new"})
        build(config)
    assert names < set(files_of(config))
    assert "old files of the index stay" in capsys.readouterr().err


def excluding(config: Config, path: Path, **more: Any) -> Config:
    retrieval = config.retrieval.model_dump(exclude_unset=True) | more
    raw = config.model_dump(mode="json", exclude_unset=True)
    exclude = {"path": str(path), **retrieval.pop("exclude", {})}
    return Config.model_validate({**raw, "retrieval": {**retrieval, "exclude": exclude}})


def test_excluded_documents_never_come_back_and_others_take_their_place(
    config: Config, tmp_path: Path
) -> None:
    """Before an update and after one, of every source."""
    names = ["d00", "d01", "d20", "d21", "d44", "nowhere"]
    (tmp_path / "takedowns.txt").write_text("\n".join([*names, "", names[0]]))
    pq.write_table(pa.table({"document": [*names, None]}), tmp_path / "takedowns.parquet")
    by_text = excluding(config, tmp_path / "takedowns.txt")
    by_column = excluding(config, tmp_path / "takedowns.parquet", exclude={"id": "document"})
    for _ in range(2):
        index = opened(config)
        excluded = read_excluded(by_text, index)
        assert excluded == read_excluded(by_column, index)
        assert (len(excluded.documents), excluded.unknown) == (5, 1)
        everything = found(index, QUERIES, 60)
        for depth in (3, 60):
            lists = found(index, QUERIES, depth, excluded.documents)
            for source, listed in lists.items():
                for kept, every in zip(listed, everything[source], strict=True):
                    assert kept == [hit for hit in every if hit[0] not in names][:depth]
        write_corpus(tmp_path, edited())
        build(config)
    with pytest.raises(ConfigError, match=r"takedowns.txt is text"):
        read_excluded(excluding(config, tmp_path / "takedowns.txt", exclude={"id": "x"}), index)


def test_given_lists_are_without_the_excluded_ones(config: Config, tmp_path: Path) -> None:
    (tmp_path / "takedowns.txt").write_text("d01")
    (tmp_path / "theirs.trec").write_text("q Q0 d01 1 2.0 me\nq Q0 d02 2 1.0 me\n")
    retrieval = {"sources": ["given"], "given": {"trec": str(tmp_path / "theirs.trec")}}
    wanted = excluding(config, tmp_path / "takedowns.txt", **retrieval)
    index = opened(config)
    given_lists = read_given(wanted, index, read_excluded(wanted, index))
    assert given_lists is not None
    assert given_lists.lists["q"].documents.tolist() == [2]


def test_the_list_is_part_of_what_a_run_is_made_of(config: Config, tmp_path: Path) -> None:
    """And a run without one is made of what it was made of before there were such lists."""
    pq.write_table(pa.table({"query_id": ["q"], "query": ["alpha"]}), tmp_path / "log.parquet")
    raw = config.model_dump(mode="json", exclude_unset=True)
    asked = Config.model_validate(
        {**raw, "queries": {"path": str(tmp_path / "log.parquet")}, "retrieval": {"depth": 5}}
    )
    made_of = read_inputs(asked).made_of
    assert "exclude" not in made_of
    assert "exclude" not in made_of["settings"]["retrieval"]
    assert "compact_at" not in made_of["settings"]["index"]
    takedowns = tmp_path / "takedowns.txt"
    prints = []
    for text in ("d01\nd02", "d02\nd01\n", "d02"):
        takedowns.write_text(text)
        inputs = read_inputs(excluding(asked, takedowns))
        rest = {key: part for key, part in inputs.made_of.items() if key != "exclude"}
        assert rest == made_of
        prints.append(inputs.made_of["exclude"])
    assert prints[0] == prints[1] != prints[2]


def test_an_index_of_a_version_that_knew_no_updates_is_built_in_full(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = open_root(config.index.path)
    manifest = read_manifest(root)
    words = {shard.start: shard.postings for shard in manifest.word_shards()}
    older = manifest.model_copy(
        update={
            "words": None,
            "generation": "",
            "shards": tuple(
                shard.model_copy(update={"digests": None, "postings": words[shard.start]})
                for shard in manifest.shards
            ),
        }
    )
    raw = root.read("manifest.json")
    assert root.swap("manifest.json", older.model_dump_json().encode(), raw)
    assert not build(config)["built"], "it can be read as it is"
    assert found(opened(config), QUERIES, 9) == found(opened(fresh(config)), QUERIES, 9)
    write_corpus(tmp_path, edited())
    assert build(config)["encoded"] == 59
    assert "a version that knew no updates built it" in capsys.readouterr().err
    with pytest.raises(IndexMismatch, match="has format 9"):
        newer = root.read("manifest.json")
        manifest = read_manifest(root).model_copy(update={"format": 9})
        root.swap("manifest.json", manifest.model_dump_json().encode(), newer)
        read_manifest(root)


def test_of_two_builds_at_a_time_one_is_refused_and_the_index_is_whole(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is begun and done while the first writes its shards."""
    write_corpus(tmp_path, edited())
    slow = index_steps.publish_manifest

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(index_steps, "publish_manifest", slow)
        build(config)
        return slow(*arguments)

    monkeypatch.setattr(index_steps, "publish_manifest", overtaken)
    with pytest.raises(IndexMismatch, match=r"another build at .* was finished meanwhile"):
        build(config)
    verify_files(opened(config))
    assert not build(config)["built"]
