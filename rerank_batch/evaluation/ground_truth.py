"""What a run is measured against: judgements, or labels made of clicks; one of them, never both."""

from dataclasses import dataclass

from rerank_batch.config import ClicksConfig, Config
from rerank_batch.data.clicks import SUFFIXES as CLICK_SUFFIXES
from rerank_batch.data.clicks import ClickFacts, read_clicks
from rerank_batch.data.id_matches import unmatched_judged_documents, unmatched_queries
from rerank_batch.data.parquet import fingerprint_files
from rerank_batch.data.plan import Plan
from rerank_batch.data.qrels import SUFFIXES as QRELS_SUFFIXES
from rerank_batch.data.qrels import Qrels, read_qrels
from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.data.text_store import TextStore
from rerank_batch.errors import ConfigError, TooManyRejects
from rerank_batch.remarks import Remark, counts_in_words

JUDGEMENTS = "measured against judgements"


@dataclass(frozen=True)
class GroundTruth:
    """Grades, and where they are made of clicks what of; ``clicks`` is None for judgements."""

    qrels: Qrels
    clicks: ClickFacts | None
    remarks: tuple[Remark, ...] = ()

    @property
    def words(self) -> str:
        """One line for whoever reads the measures, so that nobody takes clicks for judgements."""
        return JUDGEMENTS if self.clicks is None else f"measured against {self.clicks.words}"


def read_ground_truth(config: Config) -> GroundTruth | None:
    """The labels that ``evaluation.labels`` names; None where there are no judgements.

    Raises:
        InputError: see `read_qrels` and `read_clicks`.
        TooManyRejects: more rows of the click log cannot be used than ``limits.max_rejects``.
    """
    if config.evaluation.labels == "judgements":
        return None if config.qrels is None else GroundTruth(read_qrels(config.qrels), None)
    labels = read_clicks(_clicks(config), config.queries)
    _check_rejects(labels.facts, config.limits.max_rejects)
    return GroundTruth(labels.qrels, labels.facts, labels.remarks)


def ground_truth_files(config: Config) -> list[str] | None:
    """sha256 of the files that `read_ground_truth` reads, for the fingerprint of a run."""
    if config.evaluation.labels == "clicks":
        return fingerprint_files(_clicks(config).path, CLICK_SUFFIXES, "clicks")
    if config.qrels is None:
        return None
    return fingerprint_files(config.qrels.path, QRELS_SUFFIXES, "qrels")


def ground_truth_path(config: Config) -> str | None:
    """Where the labels are, for messages; None where there are none."""
    if config.evaluation.labels == "clicks":
        return _clicks(config).path
    return config.qrels.path if config.qrels else None


def label_remarks(
    labels: GroundTruth | None, plan: Plan, logged: set[str], texts: TextStore
) -> list[Remark]:
    """What looks wrong about judgements or clicks; ``logged`` are the ids of the log's queries."""
    if labels is None:
        return []
    section = "qrels" if labels.clicks is None else "clicks"
    remarks = unmatched_judged_documents(section, labels.qrels, texts)
    if plan.left_out.queries == 0:  # what queries.head leaves out is in the log
        what = "judged queries" if labels.clicks is None else "clicked queries"
        remarks += unmatched_queries(section, what, labels.qrels, logged, "the log")
    return [*labels.remarks, *remarks]


def _clicks(config: Config) -> ClicksConfig:
    if config.clicks is None:
        raise ConfigError("evaluation.labels: clicks needs clicks.path, the click log")
    return config.clicks


def _check_rejects(facts: ClickFacts, limit: float) -> None:
    if are_too_many(facts.rejected, facts.rows, limit):
        raise TooManyRejects(
            f"{facts.rejected:,} of {facts.rows:,} rows of the click log are rejected "
            f"({counts_in_words(facts.rejects)}), more than limits.max_rejects ({limit}) allows. "
            "Mend the log, or raise the limit with --set limits.max_rejects=…"
        )
