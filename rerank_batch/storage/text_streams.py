"""Text as it comes from other systems: unpacked, without a byte-order mark, as UTF-8 lines.

The one way in for text that others wrote. What a file is packed with is seen by its first bytes,
not by its name. Knows streams of bytes; not where they come from, nor what the lines say.
"""

import bz2
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

PACKED = (".gz", ".zst", ".bz2")
"""The endings that packed files have; a file without one may be packed as well."""

UNREADABLE = (EOFError, OSError, zlib.error, UnicodeError, pa.ArrowException)
"""What reading raises where a file is damaged: cut short, or not what its first bytes say."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# A text may begin with BZh or PAR1, so more than these is looked at: the level and the mark of the
# first block (or of the end, where there is none), and the header of the first page.
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&|\x17rE8)")
_ZSTD_NOTE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # pzstd begins with such a frame
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "packed with xz",
    b"PAR1\x15": "Parquet",
    b"ARROW1\x00\x00": "Arrow",
    b"\x04\x22\x4d\x18": "packed with lz4",
}
_CHUNK = 1 << 16
_UTF8_MARK = b"\xef\xbb\xbf"
# The mark of UTF-32 in little-endian order begins with that of UTF-16.
_OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def with_packed(*suffixes: str) -> tuple[str, ...]:
    """Endings of text files, each alone and with those of packed ones behind it."""
    return tuple(f"{suffix}{packed}" for suffix in suffixes for packed in ("", *PACKED))


def utf8_lines(raw: Any) -> Iterator[bytes]:
    """The lines of a binary stream of text, without their ends: LF, CRLF or CR.

    UTF-16 and UTF-32 are read where a mark says so. Text without a mark is handed out as it is:
    whether its bytes are UTF-8 is for whoever reads the lines to say.

    Raises:
        One of `UNREADABLE`.
    """
    for piece in _marked(_unpacked(raw)):
        # Where files were put together, the mark of the second stands in the middle.
        line = piece.removesuffix(b"\n").removesuffix(b"\r").removeprefix(_UTF8_MARK)
        # A CR alone ended lines on old Macs, and still does in what some tools export.
        yield from line.split(b"\r") if b"\r" in line else (line,)


def _unpacked(raw: Any) -> Any:
    stream = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
    first = stream.peek(8)[:8]
    for beginning, kind in _NO_TEXT.items():
        if first.startswith(beginning):
            raise OSError(f"it is {kind}, not text: unpack it, or name another file")
    if first.startswith(_GZIP):
        return gzip.open(stream)
    if _BZIP2.match(first):
        return io.BufferedReader(_Bzip2(stream))
    if first.startswith(_ZSTD) or _ZSTD_NOTE.match(first):
        return io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))
    return stream


def _marked(stream: Any) -> Iterator[bytes]:
    """Lines as the stream has them, in UTF-8 and without a mark."""
    if not (first := stream.readline()):
        return
    for mark, encoding in _OTHER_MARKS.items():
        if first.startswith(mark):
            whole = io.BufferedReader(_Prefixed(first, stream))
            text = io.TextIOWrapper(whole, encoding, newline="\n")
            for line in text:
                yield line.encode("utf-8", "surrogatepass")
            return
    yield first
    yield from stream


class _Bzip2(io.RawIOBase):
    """A stream of bzip2, refused where something else follows: `bz2.open` drops that unsaid."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._unpacker = bz2.BZ2Decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        data = b""
        while not data:
            rest = b""
            if self._unpacker.eof:
                rest = self._unpacker.unused_data or self._packed.read(_CHUNK)
                if not rest:
                    return 0
                self._unpacker = bz2.BZ2Decompressor()
            elif self._unpacker.needs_input and not (rest := self._packed.read(_CHUNK)):
                raise EOFError("the packed stream ends before its end mark")
            data = self._unpacker.decompress(rest, max_length=len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes have been read already."""

    def __init__(self, first: bytes, rest: Any) -> None:
        self._first, self._rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        data = self._first or self._rest.read(len(buffer))
        self._first = data[len(buffer) :]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)
