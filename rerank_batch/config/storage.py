"""The section ``storage``."""

from typing import Annotated

from pydantic import AfterValidator, Field

from rerank_batch.config.base import Location, Section
from rerank_batch.config.paths import expanded_cache


class StorageConfig(Section):
    """Where s3:// is and what a node keeps of it; changes no results.

    Credentials come from the environment, a profile or an instance role, never from here.
    """

    endpoint: Location | None = None
    """The address of a store other than AWS; by default AWS_ENDPOINT_URL_S3."""
    # Its ~ is expanded where it is used: without a home it is a folder for temporary files.
    cache: Annotated[str, AfterValidator(expanded_cache)] = "~/.cache/rerank_batch"
    """The folder on each node that holds downloaded index files."""
    cache_gb: float = Field(default=50.0, gt=0)
    """The size of that folder."""
    lease_seconds: float = Field(default=20.0, ge=1)
    """A driver that has not renewed its lease for so long counts as dead."""
