"""What people configure: one class for each section of the YAML file, and how it is read."""

from rerank_batch.config.answer_check import AnswerCheckConfig
from rerank_batch.config.base import USUAL, FilterTerm, Location, ModelText, RowsOrShare, S, Section
from rerank_batch.config.cache import CacheConfig
from rerank_batch.config.clicks import ClicksConfig, PropensityConfig
from rerank_batch.config.compute import ComputeConfig, PoolSize
from rerank_batch.config.corpus import CorpusConfig
from rerank_batch.config.cost import CostConfig, PriceConfig
from rerank_batch.config.dates import dated
from rerank_batch.config.evaluation import EvaluationConfig, SystemConfig
from rerank_batch.config.guards import GuardsConfig
from rerank_batch.config.identity import Ingredients, digest, results_settings
from rerank_batch.config.index import Bm25Config, IndexConfig, StopWords
from rerank_batch.config.labels import (
    LabelFiltersConfig,
    LabelFormat,
    LabelJudgeConfig,
    LabelNegativesConfig,
    LabelPositivesConfig,
    LabelRunConfig,
    LabelsConfig,
    LabelSplitConfig,
    LabelWindowConfig,
)
from rerank_batch.config.limits import LimitsConfig
from rerank_batch.config.load import load_config, load_section, parse_config
from rerank_batch.config.notify import NotifyConfig
from rerank_batch.config.outcomes import OutcomesConfig
from rerank_batch.config.qrels import QrelsConfig
from rerank_batch.config.queries import HeadConfig, QueriesConfig, TimeUnit
from rerank_batch.config.reranker import GateConfig, RerankerConfig
from rerank_batch.config.retrieval import (
    ExcludeConfig,
    FusionConfig,
    GivenConfig,
    RetrievalConfig,
    Source,
)
from rerank_batch.config.root import OF_COLLECTION, RUN_ID, Config
from rerank_batch.config.scorer import (
    Format,
    LlmMethod,
    Lossy,
    Precision,
    ScorerConfig,
    ScorerSettings,
    Truncation,
)
from rerank_batch.config.service import ServiceConfig
from rerank_batch.config.storage import StorageConfig

__all__ = [
    "OF_COLLECTION",
    "RUN_ID",
    "USUAL",
    "AnswerCheckConfig",
    "Bm25Config",
    "CacheConfig",
    "ClicksConfig",
    "ComputeConfig",
    "Config",
    "CorpusConfig",
    "CostConfig",
    "EvaluationConfig",
    "ExcludeConfig",
    "FilterTerm",
    "Format",
    "FusionConfig",
    "GateConfig",
    "GivenConfig",
    "GuardsConfig",
    "HeadConfig",
    "IndexConfig",
    "Ingredients",
    "LabelFiltersConfig",
    "LabelFormat",
    "LabelJudgeConfig",
    "LabelNegativesConfig",
    "LabelPositivesConfig",
    "LabelRunConfig",
    "LabelSplitConfig",
    "LabelWindowConfig",
    "LabelsConfig",
    "LimitsConfig",
    "LlmMethod",
    "Location",
    "Lossy",
    "ModelText",
    "NotifyConfig",
    "OutcomesConfig",
    "PoolSize",
    "Precision",
    "PriceConfig",
    "PropensityConfig",
    "QrelsConfig",
    "QueriesConfig",
    "RerankerConfig",
    "RetrievalConfig",
    "RowsOrShare",
    "S",
    "ScorerConfig",
    "ScorerSettings",
    "Section",
    "ServiceConfig",
    "Source",
    "StopWords",
    "StorageConfig",
    "SystemConfig",
    "TimeUnit",
    "Truncation",
    "dated",
    "digest",
    "load_config",
    "load_section",
    "parse_config",
    "results_settings",
]
