"""Write a trained model as what it changed of its base model, for shipping."""

from pathlib import Path

from rerank_batch.models.delta import DeltaFormat, write_delta
from rerank_batch.models.fingerprint import model_fingerprint, pin_model
from rerank_batch.models.location import model_folder
from rerank_batch.schema import JsonObject
from rerank_batch.training.labels import Labels, read_labels
from rerank_batch.workflows.finetune import math_threads

_MEASURE = "nDCG@10"
_MOST_QUERIES = 1000


def export_delta(
    model: Path, out: Path, base: str, kept: DeltaFormat, labels_folder: str | None
) -> JsonObject:
    """Write the delta of ``model`` over the model at ``base`` to ``out``, and load it once.

    With labels, measure on their dev split what the delta loses.
    """
    labels = read_labels(labels_folder) if labels_folder else None
    pin, base_folder = pin_model(base)  # of a hub model the delta names the commit
    written = write_delta(model_folder(str(model)), base_folder, pin.location, kept, out)
    lost = None if labels is None else _lost(labels, model, out)
    return {
        "lost": lost,
        "model": str(model),
        "base": base,
        "kept": str(kept),
        "out": str(out),
        "bytes": written.bytes,
        "matrices": len(written.errors),
        "largest_loss": written.worst,
        "fingerprint": model_fingerprint(model_folder(str(out))),
    }


def _lost(labels: Labels, whole: Path, delta: Path) -> JsonObject:
    from rerank_batch.training.dev import DevQueries
    from rerank_batch.training.measure import measure_models

    judged = DevQueries(labels.splits["dev"], labels.texts, _MEASURE, _MOST_QUERIES)
    made = model_folder(str(delta))
    (dev,) = measure_models({"dev": judged}, whole, made, math_threads())
    gain = dev.gains["start"]
    return {
        "measure": _MEASURE,
        "queries": dev.queries,
        "whole": dev.means["start"],
        "delta": dev.means["tuned"],
        "interval": gain.interval,
    }
