"""Keys: which pair a score belongs to, and among which scores it can be found.

Keys are 128 bits of a cryptographic hash. Documents are written by strangers: with 64 bits, or a
hash that is only fast, somebody could find two texts with one key and give one the other's score.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_batch.config import digest

Keys = NDArray[np.uint64]
"""One key a row, as two halves: uint64 [n, 2]. Keys are ordered by the first half first."""

FORMAT = 1
"""Of keys and segments; another format is another scope, so that nobody reads what it cannot."""

_BYTES = 16
_SCOPE_DIGITS = 32


def text_keys(texts: Sequence[str]) -> Keys:
    """The keys of texts; a lone surrogate, which JSON can smuggle into a text, has one as well."""
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()
        for text in texts
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def scope(settings: Mapping[str, Any]) -> str:
    """A name, in hex, for everything that has to be equal where scores are to be comparable.

    ``settings`` is whatever a score depends on but its two texts: the model's fingerprint,
    precision, runtime, maximal length and how texts are cut. JSON values only.
    """
    return digest({"format": FORMAT, "settings": dict(settings)})[:_SCOPE_DIGITS]
