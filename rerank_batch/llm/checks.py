"""What every job checks before it asks a language model anything."""

from collections.abc import Mapping

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError
from rerank_batch.models.location import parse_model
from rerank_batch.services.address import address_of


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
        if name is not None and config.cost.cap is not None and config.cost.price(name) is None:
            raise ConfigError(
                f"cost.cap is set, but cost.prices has no price of llm or {name}, which "
                f"{key.rpartition('.')[0]} calls: nothing that it bills would count. A server "
                "of your own costs nothing a call: write llm: {}"
            )
