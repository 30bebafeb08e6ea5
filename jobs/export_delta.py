"""Write a trained model as what it changed of its base model, for shipping."""

from pathlib import Path
from typing import Any

from jobs.console import Console, facts_table
from rerank_batch.deltas import write_delta
from rerank_batch.models import model_fingerprint, model_folder


def export_delta(model: Path, out: Path, base: str, rank: int) -> dict[str, Any]:
    """Write the delta of ``model`` over the model at ``base`` to ``out``, and load it once."""
    written = write_delta(model_folder(str(model)), model_folder(base), base, rank, out)
    return {
        "model": str(model),
        "base": base,
        "rank": rank,
        "out": str(out),
        "bytes": written.bytes,
        "matrices": len(written.errors),
        "largest_loss": written.worst,
        "fingerprint": model_fingerprint(model_folder(str(out))),
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """Print what was written."""
    facts = {
        "delta": summary["out"],
        "use it as": f"reranker.model: cross-encoder:{summary['out']}",
        "size": f"{summary['bytes'] / 1e6:.2f} MB over {summary['base']}",
        "rank": f"{summary['rank']} in {summary['matrices']} matrices; of what changed in one at "
        f"most {summary['largest_loss']:.1%} are lost",
    }
    console.result(summary, facts_table("Delta", facts))
