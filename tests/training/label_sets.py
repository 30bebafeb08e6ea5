"""Small label datasets that can be learned from: a document is relevant if it repeats the query."""

import json
import random
from pathlib import Path
from typing import Any

from tests.conftest import WORDS
from tests.support.helpers import write_parquet


def label_rows(queries: int = 30, negatives: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """One positive a query, half of its negatives hard (one word in common), half random."""
    rng = random.Random(seed)
    rows = []
    for number in range(queries):
        asked = rng.sample(WORDS, 3)
        rest = [word for word in WORDS if word not in asked]
        split = ("train", "train", "train", "dev", "test")[number % 5]
        for place in range(1 + negatives):
            hard = place > 0 and place % 2 == 1
            words = asked if place == 0 else [asked[0]] if hard else []
            words = [*words, *rng.sample(rest, 8 - len(words))]
            rng.shuffle(words)
            rows.append(
                {
                    "query_id": f"q{number:03d}",
                    "query": " ".join(asked),
                    "doc_id": f"d{number:03d}.{place}",
                    "document": " ".join(words),
                    "label": 1.0 if place == 0 else 0.0 if hard else None,
                    "source": "qrels",
                    "role": "positive" if place == 0 else "negative",
                    "origin": "judged" if place == 0 else "retrieval:1-50" if hard else "random",
                    "rank": 1 + place if hard or place == 0 else None,
                    "teacher_score": 4.0 if place == 0 else 1.0 if hard else -2.0,
                    "split": split,
                }
            )
    return rows


def write_labels(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_parquet(folder / "rows" / "labels.parquet", rows)
    (folder / "card.json").write_text(json.dumps({"fingerprint": "f" * 64}))
    return folder
