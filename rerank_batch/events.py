"""What happened in this process that the run's summary should tell: counted, then drained.

For things that are neither results nor errors, such as a batch that worked on the second try.
"""

from collections import Counter

_counts: Counter[str] = Counter()


def count(what: str) -> None:
    """Note that something happened once more."""
    _counts[what] += 1


def drain() -> dict[str, int]:
    """Everything counted since the last time."""
    counted = dict(_counts)
    _counts.clear()
    return counted
