"""What the files of a folder are, by their names alone: their kind, part of a collection and split.

An input is files of one kind. A folder in the layout of a collection (BEIR, MTEB) holds several
inputs, of which each part has its own names. Opens no file and lists no folder.
"""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from rerank_batch.errors import InputError
from rerank_batch.storage.text_streams import PACKED, with_packed

STEMS: Mapping[str, tuple[str, ...]] = {
    "corpus": ("corpus",),
    "queries": ("queries", "query_log"),
    "qrels": ("qrels",),
}
"""How the names of the files begin that a part of a collection has."""

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "corpus": (".parquet", *with_packed(".jsonl")),
    "queries": (".parquet", *with_packed(".jsonl", ".tsv", ".xml")),
    "qrels": (".parquet", *with_packed(".jsonl", ".tsv", ".qrels", ".txt")),
}
"""The endings of the files that a part can be read from."""

DEFAULT_SPLIT = "test"

SHOWN = 8
"""So many names a message has at most."""

_SPLIT_WORDS = {"train", "training", "test", "dev", "val", "valid", "validation", "eval"}
_NUMBERED = re.compile(r"-\d+-of-\d+$")
_TABLES = (".parquet", *with_packed(".jsonl", ".ndjson", ".csv"))
"""Files that hold rows of something, whether or not an input can be read from them."""
_KINDS = {
    *("parquet", "arrow", "feather", "orc", "avro"),
    *("jsonl", "ndjson", "json", "csv", "tsv", "xml"),
    *("txt", "md", "qrels", "trec", "run"),
}
# A word of a layout says what a file is; others do where they stand beside another part's.
_SURE = {"corpus": "corpus", "queries": "queries", "qrels": "qrels"}
_LIKELY = {
    **dict.fromkeys(("documents", "docs", "passages"), "corpus"),
    **dict.fromkeys(("query", "topics"), "queries"),
    **dict.fromkeys(("judgements", "judgments"), "qrels"),
}


def kind_of(name: str) -> str:
    """What a file is by its name, whether it is packed or not: parquet, jsonl, tsv …

    It is "" where the end of the name says nothing, as of topics.301.
    """
    kind = PurePosixPath(_unpacked(name)).suffix.removeprefix(".")
    return kind if kind in _KINDS else ""


def in_words(counts: Mapping[str, int]) -> str:
    """Numbers of files by kind: ``2 Parquet files``."""
    listed = []
    for kind, count in sorted(counts.items()):
        name = {"parquet": "Parquet", "": "unnamed"}.get(kind, kind)
        listed.append(f"{count:,} {name} file{'s' * (count != 1)}")
    return " and ".join(listed) or "no file"


def one_kind(names: Sequence[str], what: str, place: str) -> None:
    """Refuse files that are not of one kind, and one that is there packed and unpacked.

    Raises:
        InputError: there are several kinds; the message has a name of each.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(kind_of(name), []).append(name)
    if len(kinds) > 1:
        counts = in_words({kind: len(some) for kind, some in kinds.items()})
        examples = ", ".join(some[0] for some in kinds.values())
        raise InputError(
            f"{what}: {place} holds {counts} ({examples}). Only files of one kind are read "
            f"together: name those of the {_subject(what)}, for example with a glob that ends in "
            f"*.{kind_of(names[0])}"
        )
    packed: dict[str, str] = {}
    for name in names:
        other = packed.setdefault(_unpacked(name), name)
        if other != name:
            raise InputError(
                f"{what}: {place} holds the same file twice, as {other} and {name}; remove one, or "
                "name the other"
            )


def input_of(names: Sequence[str], suffixes: tuple[str, ...], what: str, place: str) -> list[str]:
    """The files of a folder that an input is read from, of all that the folder has.

    A collection's folder gives each part its own; elsewhere all that can be read belong together.

    Raises:
        InputError: the files are of several kinds, parts or splits.
    """
    chosen = list(names)
    if what in STEMS:
        readable = [name for name in names if _ends(name, SUFFIXES[what])]
        if stray := _of_other_parts(readable, what):
            chosen = _own_part(names, what, place, stray)
        else:
            own = (None, what)
            rest = [n for n in names if n not in readable and _part_of(n, _SURE | _LIKELY) in own]
            chosen = [*readable, *rest]
    tables = [name for name in chosen if _ends(name, (*suffixes, *_TABLES))]
    if any(_ends(name, suffixes) for name in tables):
        if what == "qrels":
            _one_split(tables, place)
        one_kind(tables, what, place)
    return [name for name in tables if _ends(name, suffixes)]


def input_of_glob(names: Sequence[str], what: str, pattern: str) -> None:
    """Refuse files that a glob matches where they are no one input.

    Raises:
        InputError: they are of several kinds, parts or splits.
    """
    if what in STEMS and (stray := _of_other_parts(names, what)):
        raise InputError(
            f"{what}: {pattern} matches {_listed(names)}, and {stray[0]} holds other things by "
            f"its name; name the files of the {_subject(what)} alone"
        )
    if what == "qrels":
        _one_split(names, pattern)
    one_kind(names, what, pattern)


def forms(part: str, stem: str, names: Iterable[str]) -> dict[str, list[str]]:
    """Every form in which the files have what a stem names, with its files.

    A form is a file, numbered files (as a glob) or a folder.
    """
    suffixes = SUFFIXES[part]
    whole = {f"{stem}{suffix}" for suffix in suffixes}
    # A split may end with a number, test-2020; a corpus is numbered by its files alone.
    of = r"-\d+-of-\d+" if "/" in stem else r"-\d+(-of-\d+)?"
    numbered = re.compile(rf"{re.escape(stem)}{of}\.parquet")
    found: dict[str, list[str]] = {}
    for name in names:
        form = None
        if name in whole:
            form = name
        elif numbered.fullmatch(name):
            form = f"{glob.escape(stem)}-[0-9]*{'-of-*' if '-of-' in name else ''}.parquet"
        elif name.startswith(f"{stem}/") and _ends(name, suffixes):
            form = stem
        elif name.startswith(f"{stem}.parquet/") and _ends(name, (".parquet",)):
            form = f"{stem}.parquet"
        if form is not None:
            found.setdefault(form, []).append(name)
    return found


def stems_of_split(place: str, names: Sequence[str], wanted: str | None) -> tuple[str, ...]:
    """How the files of the judgements begin: those of a split, or those of a whole collection.

    Raises:
        InputError: there is no such split; the message, which begins with ``place``, has those
            there are.
    """
    readable = [name for name in names if _ends(name, SUFFIXES["qrels"])]
    splits = sorted({split for split in map(_split_in_qrels, readable) if split})
    unsplit = forms("qrels", "qrels", [name for name in readable if "/" not in name])
    if wanted is None and (unsplit or not splits):
        return ("qrels",)
    split = wanted or (splits[0] if len(splits) == 1 else DEFAULT_SPLIT)
    if split not in splits:
        choice = "nothing is split: leave split out"
        if splits:
            choice = f"choose among {', '.join(splits)} (--set split=…)"
        raise InputError(f"{place} has no judgements of the split {split!r}; {choice}")
    return (f"qrels/{split}",)


def _split_in_qrels(name: str) -> str | None:
    """The split of a file in the folder of the judgements: its name, or that of its folder."""
    folder, _, inside = name.partition("/")
    if folder != "qrels" or not inside:
        return None
    split, slash, _ = inside.partition("/")
    if slash:
        return split
    ending = max((each for each in SUFFIXES["qrels"] if inside.endswith(each)), key=len, default="")
    stem = inside.removesuffix(ending)
    return _NUMBERED.sub("", stem) if ending == ".parquet" else stem


def _own_part(names: Sequence[str], part: str, place: str, stray: Sequence[str]) -> list[str]:
    """The files of a part in the folder of a collection."""
    stems = STEMS[part]
    if part == "qrels":
        stems = stems_of_split(f"qrels: {place}", names, None)
    found = {form: some for stem in stems for form, some in forms(part, stem, names).items()}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise InputError(
            f"{part}: {place} has several of {part}: {', '.join(sorted(found))}. Name one with "
            f"--set {part}.path=…"
        )
    raise InputError(
        f"{part}: {place} holds {_listed(names)}, of which {stray[0]} holds other things by its "
        f"name. Name the file or folder of the {_subject(part)} with --set {part}.path=…"
    )


def _of_other_parts(names: Sequence[str], part: str) -> list[str]:
    """The files that hold another part by their names; none where all are of one part."""
    sure = {name: _part_of(name, _SURE) for name in names}
    likely = {name: _part_of(name, _SURE | _LIKELY) for name in names}
    parts = set(likely.values()) - {None}
    found = likely if len(parts) > 1 else sure
    if len(set(found.values())) < 2:
        return []
    return [name for name, its in found.items() if its not in (None, part)]


def _part_of(name: str, words: Mapping[str, str]) -> str | None:
    """The part of a collection that a path names, the nearest word to its end first."""
    for component in reversed(_components(name)):
        for word in reversed(re.findall(r"[a-z]+", component)):
            if word in words:
                return words[word]
    return None


def _one_split(names: Sequence[str], place: str) -> None:
    """Refuse judgements of several splits: merged they are those of no evaluation.

    Raises:
        InputError: with their names.
    """
    splits = {_split_of(name): name for name in reversed(names)}
    if len(splits) < 2 or set(splits) == {None}:
        return
    shown = _listed(sorted(splits.values()))
    raise InputError(
        f"qrels: {place} holds judgements of several splits ({shown}); name the file or folder of "
        "one of them"
    )


def _split_of(name: str) -> str | None:
    """The component of a path that names a split."""
    for component in _components(name):
        stem = _NUMBERED.sub("", component)
        if _SPLIT_WORDS & set(re.findall(r"[a-z]+", stem)):
            return stem
    return None


def _components(name: str) -> list[str]:
    """The folders of a path and its name without endings; columns of a partition are none."""
    *folders, last = _unpacked(name).lower().split("/")
    return [each for each in (*folders, PurePosixPath(last).stem) if "=" not in each]


def _unpacked(name: str) -> str:
    lower = name.lower()
    for ending in PACKED:
        if lower.endswith(ending):
            return lower.removesuffix(ending)
    return lower


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"


def _subject(what: str) -> str:
    return {"qrels": "judgements"}.get(what, what)
