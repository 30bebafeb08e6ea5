"""Which queries are done: blocks of the plan, a bitmap over them, and the proof that all are."""

import itertools
from collections.abc import Iterable

import numpy as np

from rerank_batch.errors import RunConflict


def block_bounds(rows: int, block_rows: int) -> list[tuple[int, int]]:
    """Blocks of exactly ``block_rows``, the last of which takes the remainder as well.

    No block is smaller than ``block_rows`` unless it is the only one, so no executor has a reason
    to put two of them together.
    """
    blocks = max(1, rows // block_rows)
    edges = [number * block_rows for number in range(blocks)] + [rows]
    return list(itertools.pairwise(edges))


class Done:
    """One bit per planned query: 100 million queries take 12.5 MB."""

    def __init__(self, planned: int) -> None:
        self._bits = np.zeros((planned + 7) // 8, dtype=np.uint8)

    @property
    def bytes(self) -> int:
        """Memory of the bitmap."""
        return self._bits.nbytes

    def add(self, start: int, stop: int) -> None:
        """Mark queries ``start`` up to ``stop``."""
        first, last = start // 8, (stop - 1) // 8
        if stop <= start:
            return
        head, tail = 0xFF << (start % 8) & 0xFF, 0xFF >> (7 - (stop - 1) % 8)
        if first == last:
            self._bits[first] |= head & tail
            return
        self._bits[first] |= head
        self._bits[first + 1 : last] = 0xFF
        self._bits[last] |= tail

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of ``start`` up to ``stop`` are marked."""
        first, last = start // 8, (stop - 1) // 8
        if stop <= start:
            return True
        head, tail = 0xFF << (start % 8) & 0xFF, 0xFF >> (7 - (stop - 1) % 8)
        if first == last:
            return bool(self._bits[first] & (head & tail) == head & tail)
        return bool(
            self._bits[first] & head == head
            and self._bits[last] & tail == tail
            and np.all(self._bits[first + 1 : last] == 0xFF)
        )

    def __len__(self) -> int:
        return int(np.bitwise_count(self._bits).sum())


def check_coverage(covered: Iterable[tuple[int, int]], planned: int, run_id: str) -> None:
    """Every number from 0 to ``planned`` exactly once, or `RunConflict` with the first fault."""
    expected = 0
    for start, stop in sorted(covered):
        if start > expected:
            raise RunConflict(f"run {run_id}: queries {expected} to {start - 1} are missing")
        if start < expected:
            raise RunConflict(f"run {run_id}: queries from {start} are there twice")
        expected = stop
    if expected > planned:
        raise RunConflict(f"run {run_id}: queries from {planned} are beyond the plan")
    if expected < planned:
        raise RunConflict(f"run {run_id}: queries {expected} to {planned - 1} are missing")
