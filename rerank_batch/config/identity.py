"""What makes a run another run: the settings that change results, and their digest."""

import hashlib
import json

from rerank_batch.config.base import USUAL
from rerank_batch.config.retrieval import RetrievalConfig
from rerank_batch.config.root import Config
from rerank_batch.schema import JsonObject

Ingredients = JsonObject
"""What a run or an index is made of, as JSON: the input of its fingerprint, kept in its spec."""


def digest(value: object) -> str:
    """sha256 of a value's canonical JSON, as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def results_settings(config: Config) -> Ingredients:
    """The settings that change results, for the fingerprint of a run.

    Paths are left out (the content of what they name is hashed instead), of models their
    location, everything that only changes where or how fast the work is done, and of judgements
    and clicks those that are not the labels.
    """
    settings = config.model_dump(mode="json")
    for key in _OTHER_SECTIONS:
        del settings[key]
    unused = "clicks" if config.evaluation.labels == "judgements" else "qrels"
    settings[unused] = None
    for section in ("corpus", "queries", "qrels", "clicks", "index"):
        if settings[section] is not None:
            settings[section].pop("path")
    if settings["queries"] is not None:
        del settings["queries"]["date"]  # it is in the path or the filter that it filled
        if settings["queries"]["head"] is None:
            del settings["queries"]["head"]  # runs that knew no such setting go on
        if settings["queries"]["time_unit"] is None:
            del settings["queries"]["time_unit"]  # likewise
    for section, key in _USUAL_COLUMNS:
        if settings[section] is not None:
            settings[section][key] = _as_before(settings[section][key])
    del settings["index"]["compact_at"]
    settings["index"]["encoder"] = settings["index"]["encoder"].partition(":")[0]
    settings["retrieval"] = _retrieval_settings(config.retrieval)
    if "bm25" not in config.retrieval.sources:
        del settings["index"]["bm25"]
    for name in ("systems", "segments"):
        del settings["evaluation"][name]
    if config.reranker is not None:
        settings["reranker"] = {
            "top_k": config.reranker.top_k,
            "gate": config.reranker.gate
            and config.reranker.gate.model_dump(mode="json", exclude={"max_loss"}),
            "stages": [
                {**stage.model_dump(mode="json", exclude={"service"}), "model": family}
                for stage in config.reranker.cascade
                for family in [stage.model.partition(":")[0]]
            ],
        }
    settings["compute"] = {"block_rows": settings["compute"]["block_rows"]}
    return settings


def _retrieval_settings(retrieval: RetrievalConfig) -> JsonObject:
    """What of the retrieval changes results."""
    if retrieval.sources == ("dense",):
        return {
            "depth": retrieval.depth,
            **({"depths": retrieval.depths} if retrieval.depths else {}),
        }
    settings = retrieval.model_dump(mode="json", exclude={"given", "depths", "fusion", "exclude"})
    settings["depths"] = {source: retrieval.depth_of(source) for source in retrieval.sources}
    if len(retrieval.sources) > 1:
        settings["fusion"] = retrieval.fusion.model_dump(mode="json")
    return settings


_USUAL_COLUMNS = (("corpus", "title"), ("queries", "time"), ("queries", "weight"))


def _as_before(column: str | None) -> str | bool | None:
    """A column as fingerprints have had it since before one could be switched off."""
    return {USUAL: None, None: False}.get(column, column)


_OTHER_SECTIONS = (
    "root",
    "job",
    "collection",
    "split",
    "outcomes",
    "answer_check",
    "storage",
    "cache",
    "cost",
    "limits",
    "labels",
    "guards",
    "notify",
)
