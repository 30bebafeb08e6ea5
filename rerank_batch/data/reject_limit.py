"""How many rows of a log may be rejected."""


def are_too_many(rejected: int, rows: int, limit: float) -> bool:
    """Whether so many rejected rows of a log are beyond the limit: a number, or a share below 1."""
    return rejected > (limit if isinstance(limit, int) else limit * rows)
