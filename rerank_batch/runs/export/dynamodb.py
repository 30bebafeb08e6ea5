"""Serving rows as items of DynamoDB, for its import from S3."""

import json

from rerank_batch.runs.export.rows import KEY
from rerank_batch.schema import TableRow

KEY_BYTES = 2_048

ITEM_BYTES = 400_000
"""Limits of DynamoDB: a partition key, and an item with the names of its attributes."""


def item(row: TableRow) -> bytes | None:
    """An item in DynamoDB JSON, a line for its import from S3; None where it holds none."""
    attributes = {
        KEY: {"S": row[KEY]},
        "query": {"S": row["query"]},
        "doc_ids": {"L": [{"S": name} for name in row["doc_ids"]]},
        "scores": {"L": [{"N": _number(score)} for score in row["scores"]]},
    }
    line = (
        json.dumps({"Item": attributes}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    )
    # The line is longer than what DynamoDB counts: to be beyond the limit here is to be near it.
    if len(row[KEY].encode()) > KEY_BYTES or len(line) > ITEM_BYTES:
        return None
    return line


def _number(score: float) -> str:
    """All digits of a float32, few enough for DynamoDB."""
    return f"{score:.9g}"
