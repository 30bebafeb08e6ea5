"""What is drawn for a query, decided by the seed, its id and the ids of documents alone.

It depends on no random generator's version, no order of blocks, no number of workers.
"""

import hashlib
from typing import Any

_WORD = 8


def draws(seed: int, query_id: str, documents: int, count: int) -> list[int]:
    """Different numbers below ``documents`` in an order that the seed and the query decide; at most
    ``count``, fewer where so many draws repeat themselves."""
    found: dict[int, None] = {}
    block = 0
    while len(found) < min(count, documents) and block * _WORD < 4 * count:
        digest = hashlib.blake2b(f"{seed}\0{query_id}\0{block}".encode()).digest()
        for start in range(0, len(digest), _WORD):
            number = int.from_bytes(digest[start : start + _WORD], "big") % documents
            found.setdefault(number)
        block += 1
    return list(found)[:count]


def order_key(seed: int, query_id: str) -> Any:
    """A key by which documents are in an order that the seed and the query decide."""
    begun = hashlib.blake2b(f"{seed}\0{query_id}\0".encode(), digest_size=_WORD)

    def key(doc_id: str) -> bytes:
        whole = begun.copy()
        whole.update(doc_id.encode())
        return whole.digest()

    return key
