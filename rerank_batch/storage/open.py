"""Opens the root that a path or an s3:// URI names: a folder or a bucket."""

from rerank_batch.errors import ConfigError
from rerank_batch.storage.base import Root
from rerank_batch.storage.folder import Folder
from rerank_batch.storage.s3 import Bucket


def open_root(uri: str) -> Root:
    """The root behind a path or an s3:// URI; nothing is read or written yet.

    Raises:
        ConfigError: a scheme that is neither.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return Folder(uri)
    if scheme != "s3":
        raise ConfigError(f"{uri!r}: roots are folders or s3://bucket/prefix, not {scheme}://")
    return Bucket(uri)
