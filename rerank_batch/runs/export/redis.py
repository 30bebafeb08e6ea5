"""Serving rows as commands for `redis-cli --pipe`."""

import json

from rerank_batch.runs.export.rows import KEY
from rerank_batch.schema import TableRow


def command(row: TableRow, prefix: str) -> bytes:
    """SET of the key to a JSON value, in Redis' own protocol, which no text can break out of."""
    listed = [[name, score] for name, score in zip(row["doc_ids"], row["scores"], strict=True)]
    value = json.dumps({"query": row["query"], "results": listed}, ensure_ascii=False)
    words = (b"SET", (prefix + row[KEY]).encode(), value.encode())
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
