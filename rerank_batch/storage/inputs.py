"""Files that somebody else wrote: finding, opening and hashing them, in folders and in s3://.

Knows paths and bytes, not what is in the files.
"""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from fsspec.utils import glob_translate

from rerank_batch.errors import ConfigError, InputError, RerankBatchError, StorageError
from rerank_batch.storage.base import sha256_file
from rerank_batch.storage.layouts import input_of, input_of_glob, kind_of
from rerank_batch.storage.s3 import (
    TRIES,
    endpoint_of_environment,
    list_objects,
    split_uri,
)

_CHUNK = 8 << 20
_MIXED = ("collection", "labels")
"""Folders that hold several things by their layout, and whose reader knows which is which."""


@dataclass(frozen=True)
class InputFile:
    """One file of an input: its path or s3:// URI, its bytes, and for S3 its entity tag."""

    uri: str
    size: int
    etag: str = ""

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.uri).name

    @property
    def kind(self) -> str:
        """What it is by its name, packed or not: parquet, jsonl, tsv …"""
        return kind_of(self.name)

    def open(self) -> pa.NativeFile:
        """The file for random access."""
        return open_file(self.uri)

    def sha256(self) -> str:
        """sha256 of the bytes, as hex.

        Raises:
            InputError: the file cannot be read to its end.
            StorageError: the store fails.
        """
        try:
            if not is_remote(self.uri):
                return sha256_file(Path(self.uri))
            checksum = hashlib.sha256()
            with self.open() as source:
                while chunk := source.read(_CHUNK):
                    checksum.update(chunk)
            return checksum.hexdigest()
        except (OSError, pa.ArrowException) as error:
            raise reading_failed(f"reading {self.uri} failed", error) from None


def reading_failed(what: str, error: Exception) -> RerankBatchError:
    """The error of a read that broke off: the store's failure, or the file's."""
    kind = StorageError if "AWS Error" in str(error) else InputError
    return kind(f"{what}: {error}")


def is_remote(path: str) -> bool:
    """Whether a path is an s3:// URI."""
    return path.startswith("s3://")


def input_files(path: str, suffixes: tuple[str, ...], what: str) -> list[InputFile]:
    """The files that an input path names: a file, a folder searched to the bottom, or a glob.

    Sorted by path. Hidden files and those starting with ``_`` are passed over in folders, as
    Parquet writers use them for their own notes. All are of one kind; of the folder of a collection
    they are those of the part that ``what`` names (see `layouts`).

    Raises:
        InputError: nothing is there, or files of several kinds; the message says what was looked
            for and what was found.
        StorageError: the bucket cannot be listed.
    """
    if is_remote(path):
        return _in_bucket(path, suffixes, what)
    if "://" in path:
        raise ConfigError(f"{what} path {path!r}: inputs are read from folders and s3:// only")
    files = _in_folders(path, suffixes, what)
    return [InputFile(str(file), file.stat().st_size) for file in files]


def file_kinds(path: str, suffixes: tuple[str, ...], what: str) -> dict[str, int]:
    """How many files of which kind an input path names.

    Raises:
        InputError, StorageError: see `input_files`.
    """
    return dict(Counter(file.kind for file in input_files(path, suffixes, what)))


def open_file(uri: str) -> pa.NativeFile:
    """A file or object for random access; `StorageError` where it cannot be opened."""
    filesystem, path = _filesystem(uri)
    try:
        return filesystem.open_input_file(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot open {uri}: {error}") from None


def filesystem_of(uris: Sequence[str]) -> tuple[pafs.FileSystem, list[str]]:
    """Files of one place as Arrow's readers want them: the file system and paths within it."""
    return _filesystem(uris[0])[0], [_filesystem(uri)[1] for uri in uris]


def open_dataset(uris: Sequence[str], **options: Any) -> ds.Dataset:
    """Parquet files of one place as a pyarrow dataset, in the order given."""
    filesystem, paths = filesystem_of(uris)
    if base := options.pop("base", None):
        options["partition_base_dir"] = _filesystem(base)[1]
    # In nanoseconds, the default, times beyond the year 2262 would come out as others, unsaid.
    parquet = ds.ParquetFileFormat(coerce_int96_timestamp_unit="us")
    return ds.dataset(paths, format=parquet, filesystem=filesystem, **options)


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    if is_remote(uri):
        return _s3_filesystem(endpoint_of_environment()), uri.removeprefix("s3://")
    return pafs.LocalFileSystem(), str(Path(uri).absolute())


@functools.cache
def _s3_filesystem(endpoint: str | None) -> pafs.S3FileSystem:
    """Made inside each process from the default chain: pickled it would carry the secret key."""
    scheme, _, host = (endpoint or "").partition("://")
    where = {"endpoint_override": host, "scheme": scheme} if endpoint else {}
    return pafs.S3FileSystem(
        connect_timeout=5,
        request_timeout=30,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        **where,
    )


def _in_bucket(path: str, suffixes: tuple[str, ...], what: str) -> list[InputFile]:
    bucket, key = split_uri(path)
    literal = re.split(r"[*?\[]", key, maxsplit=1)[0]
    found = [
        InputFile(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), str(entry["ETag"]))
        for entry in list_objects(bucket, literal)
        if not entry["Key"].endswith("/")
    ]
    if exact := [file for file in found if file.uri == path]:
        return exact
    folder = path.rstrip("/") + "/"
    if inside := [file for file in found if file.uri.startswith(folder)]:
        return _readable(inside, folder, suffixes, what)
    if literal == key:
        raise InputError(f"{what}: nothing at {path}; name a file or folder that is there")
    try:
        matches = re.compile(glob_translate(path)).match
    except ValueError as error:
        raise InputError(f"{what}: {path!r} is no glob: {error}") from None
    if not (chosen := [file for file in found if matches(file.uri)]):
        raise InputError(f"{what}: no file matches {path!r}")
    _check_matches([file.uri for file in chosen], path, what)
    return chosen


def _in_folders(path: str, suffixes: tuple[str, ...], what: str) -> list[Path]:
    if any(sign in path for sign in "*?[") and not Path(path).exists():
        anchor = Path(path).anchor or "."
        pattern = str(Path(path).relative_to(anchor)) if Path(path).anchor else path
        try:
            found = sorted(p for p in Path(anchor).glob(pattern) if p.is_file())
        except ValueError as error:
            raise InputError(f"{what}: {path!r} is no glob: {error}") from None
        if not found:
            raise InputError(f"{what}: no file matches {path!r}")
        _check_matches([str(file) for file in found], path, what)
        return found
    target = Path(path)
    if target.is_dir():
        files = [InputFile(str(p), 0) for p in sorted(target.rglob("*")) if p.is_file()]
        return [Path(file.uri) for file in _readable(files, f"{target}/", suffixes, what)]
    if not target.is_file():
        raise InputError(f"{what}: nothing at {path}; name a file or folder that is there")
    return [target]


def _readable(
    files: Sequence[InputFile], folder: str, suffixes: tuple[str, ...], what: str
) -> list[InputFile]:
    names = {file.uri.removeprefix(folder): file for file in files}
    shown = [
        name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))
    ]
    if what in _MIXED:
        chosen = [name for name in shown if name.endswith(suffixes)]
    else:
        chosen = input_of(shown, suffixes, what, folder.rstrip("/"))
    if not chosen:
        raise InputError(
            f"{what}: no {' or '.join(suffixes)} file in the folder {folder.rstrip('/')}"
        )
    return [names[name] for name in chosen]


def _check_matches(paths: Sequence[str], pattern: str, what: str) -> None:
    """Refuse what a glob matches where it is no one input."""
    if what not in _MIXED:
        literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
        input_of_glob([path.removeprefix(f"{literal}/") for path in paths], what, pattern)
