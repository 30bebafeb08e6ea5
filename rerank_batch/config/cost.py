"""The section ``cost``."""

from pydantic import Field

from rerank_batch.config.base import Section


class PriceConfig(Section):
    """What a service bills, in ``cost.currency``: per call, search unit, or million tokens."""

    request: float = Field(default=0.0, ge=0)
    search_unit: float = Field(default=0.0, ge=0)
    million_tokens: float = Field(default=0.0, ge=0)
    million_output_tokens: float = Field(default=0.0, ge=0)


class CostConfig(Section):
    """What things cost; changes no results.

    ``per_hour`` is the price of the cluster. ``prices`` are those of services, by family (cohere)
    or model (cohere:rerank-v3.5). A run stops before it spends more than ``cap`` on services.
    """

    per_hour: float | None = Field(default=None, ge=0)
    currency: str = "USD"
    prices: dict[str, PriceConfig] = Field(default={})
    cap: float | None = Field(default=None, ge=0)

    def price(self, model: str) -> PriceConfig | None:
        """The price of a model ``family:name``; None where none is given."""
        return self.prices.get(model, self.prices.get(model.partition(":")[0]))
