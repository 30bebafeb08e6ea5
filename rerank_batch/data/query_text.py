"""The text of queries: as models read it, and as two queries are compared wherever they are."""

import pyarrow as pa
import pyarrow.compute as pc

_SPACES = r"[\s\v\x{85}\p{Z}]+"


def normalise(texts: pa.Array) -> pa.Array:
    """Queries as models read them: Unicode NFKC, runs of white space as one blank, trimmed."""
    folded = pc.utf8_normalize(texts, form="NFKC")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(folded, _SPACES, " "))


def as_read(texts: pa.Array, max_chars: int) -> tuple[pa.Array, pa.Array]:
    """Queries normalised and cut at ``max_chars``, and which were cut."""
    whole = normalise(texts)
    cut = pc.greater(pc.utf8_length(whole), max_chars)
    return pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(whole, 0, max_chars)), cut


def match_keys(texts: pa.Array) -> pa.Array:
    """The keys of queries that `as_read` gave: two of one key are one query wherever texts are
    compared."""
    return pc.utf8_lower(texts)


def match_key(text: str) -> str:
    """The key of one query of any spelling and length."""
    key: str = match_keys(normalise(pa.array([text], pa.string())))[0].as_py()
    return key
