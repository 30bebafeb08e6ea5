"""Locations without credentials."""

import pytest

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError
from tests.support.configs import with_value


@pytest.mark.parametrize("key", ["access_key", "secret_key", "aws_secret_access_key", "profile"])
def test_there_is_no_place_for_credentials(key: str) -> None:
    with pytest.raises(ConfigError, match=f"storage.{key}: unknown key") as error:
        parse_config(with_value(f"storage.{key}", "canary"))
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9000", "https://minio.example", "http://[::1]:9000", None]
)
def test_plain_endpoints_are_fine(endpoint: str | None) -> None:
    assert parse_config(with_value("storage.endpoint", endpoint)).storage.endpoint == endpoint


PATHS = [
    "root",
    "collection",
    "corpus.path",
    "queries.path",
    "qrels.path",
    "index.path",
    "outcomes.path",
]


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        *((key, "s3://AKIAKEY:canary@bucket/folder") for key in PATHS),
        ("root", "S3://AKIAKEY:canary@bucket/folder"),
        ("root", "s3+http://AKIAKEY:canary@bucket/folder"),
        ("root", "s3://AKIAKEY:canary/with/slashes@bucket/folder"),
        ("root", "https://user:canary@host/folder"),
        ("storage.endpoint", "https://user:canary@host:9000"),
        ("storage.endpoint", "http://canary@host"),
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(key: str, uri: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: credentials in a URI are refused") as error:
        parse_config(with_value(key, uri))
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("uri", ["s3://bucket/folder", "s3://bucket/a@b", "./me@home", "a:b@c"])
def test_paths_without_credentials_are_fine(key: str, uri: str) -> None:
    assert parse_config(with_value(key, uri))
