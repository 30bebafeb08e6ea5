"""What every job checks before it calls a language model."""

from collections.abc import Mapping

from rerank_batch.config import Config
from rerank_batch.models.location import parse_model
from rerank_batch.services.address import address_of
from rerank_batch.services.spending import check_price


def check_llm(config: Config, models: Mapping[str, str | None]) -> None:
    """Check models under the keys that name them, the endpoint, and that a cap has prices.

    Raises:
        ModelError: a model that is none of the family llm.
        ConfigError: a missing key or price.
    """
    for key, name in models.items():
        if name is not None:
            parse_model(name, ("llm",), key)
    address_of("llm")
    for key, name in models.items():
        if name is not None:
            check_price(config.cost, name, key.rpartition(".")[0])
