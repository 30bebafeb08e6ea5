"""The section ``cost``."""

from pydantic import Field

from rerank_batch.config.base import Section


class PriceConfig(Section):
    """What a service bills, in ``cost.currency``."""

    request: float = Field(default=0.0, ge=0)
    """The price of a call."""
    search_unit: float = Field(default=0.0, ge=0)
    """The price of a search unit."""
    million_tokens: float = Field(default=0.0, ge=0)
    """The price of a million tokens."""
    million_output_tokens: float = Field(default=0.0, ge=0)
    """The price of a million tokens of answers."""


class CostConfig(Section):
    """What things cost; changes no results."""

    per_hour: float | None = Field(default=None, ge=0)
    """The price of the cluster."""
    currency: str = "USD"
    """What prices are in."""
    prices: dict[str, PriceConfig] = Field(default={})
    """Prices of services, by family (cohere) or model (cohere:rerank-v3.5)."""
    cap: float | None = Field(default=None, ge=0)
    """A run stops before it spends more than this on services."""

    def price(self, model: str) -> PriceConfig | None:
        """The price of a model ``family:name``; None where none is given."""
        return self.prices.get(model, self.prices.get(model.partition(":")[0]))
