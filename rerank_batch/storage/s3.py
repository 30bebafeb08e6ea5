"""A root in a bucket: boto3 for control objects and uploads, conditional headers for the protocol.

Credentials come from the default chain of the SDK and are never held here: clients are made once
per process and thrown away with it, so nothing that travels to a worker carries a secret. The
endpoint is the environment's (AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL), which `use_endpoint` sets.
"""

import base64
import functools
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as failures
import stamina
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as ClientConfig
from urllib3.exceptions import HTTPError

from rerank_batch.errors import ConfigError, StorageError
from rerank_batch.storage.base import (
    Published,
    check_conditional_writes,
    check_key,
    sha256_file,
)

ENDPOINT = "AWS_ENDPOINT_URL_S3"

TRIES = 8
"""How often a request is tried, with waits that double: a store that fails for ever is given up
after 10 to 60 s."""

_ONE_PUT = 64 << 20
_DELETE_AT_ONCE = 1000
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {
    "403": "access is denied",
    "AccessDenied": "access is denied",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the session has expired",
    "InvalidToken": "the session token is not valid",
}
_LOST = {"412", "PreconditionFailed"}
# 409 is two conditional writes that met: neither is known to have lost.
_TRY_AGAIN = {408, 409, 429, "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch"}
_Failure = (failures.BotoCoreError, failures.ClientError, S3UploadFailedError, HTTPError)


def use_endpoint(endpoint: str | None) -> None:
    """Make a configured endpoint this process's: every S3 reader there is looks into the same
    variable, so boto3, pyarrow, polars and the workers agree."""
    if endpoint is not None:
        os.environ[ENDPOINT] = endpoint


def endpoint_of_environment() -> str | None:
    """The endpoint that this process talks to; None means AWS itself."""
    return os.environ.get(ENDPOINT) or os.environ.get("AWS_ENDPOINT_URL") or None


def endpoint_variables() -> dict[str, str]:
    """What a worker process needs in its environment to talk to the same store."""
    return {ENDPOINT: os.environ[ENDPOINT]} if ENDPOINT in os.environ else {}


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI.

    Raises:
        ConfigError: no bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
    return bucket, key


def client(tries: int = TRIES) -> Any:
    """This process's S3 client for the endpoint of the environment."""
    return _client(endpoint_of_environment(), tries)


@functools.cache
def _client(endpoint: str | None, tries: int) -> Any:
    settings = ClientConfig(
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=32,
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    try:
        # A session of its own: the default one is not safe to share between threads.
        return boto3.session.Session().client(
            "s3", endpoint_url=endpoint, config=settings, region_name=_region(endpoint)
        )
    except (failures.BotoCoreError, ValueError) as error:
        raise StorageError(f"no S3 client for {endpoint or 'AWS'}: {error}") from None


def _region(endpoint: str | None) -> str | None:
    """Stores other than AWS do not care, but a signature needs some region."""
    known = boto3.session.Session().region_name
    return known or ("us-east-1" if endpoint else None)


class Bucket:
    """See `Root`: the objects of a bucket under a prefix."""

    def __init__(self, uri: str) -> None:
        self._bucket, prefix = split_uri(uri)
        self.uri = uri.rstrip("/")
        prefix = prefix.rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def path(self, key: str) -> str:
        """See `Root.path`."""
        return f"s3://{self._bucket}/{self._key(key)}"

    def local(self, key: str) -> Path | None:
        """See `Root.local`: nothing in a bucket lies on this machine."""
        return None

    def read(self, key: str) -> bytes | None:
        """See `Root.read`."""
        found = self._get(key)
        return None if found is None else found[0]

    def create_once(self, key: str, data: bytes) -> bool:
        """See `Root.create_once`."""
        return self._put_if(key, data, {"IfNoneMatch": "*"})

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """See `Root.swap`."""
        if expected is None:
            return self.create_once(key, data)
        found = self._get(key)
        if found is None or found[0] != expected:
            return False
        return self._put_if(key, data, {"IfMatch": found[1]})

    def sizes(self, prefix: str) -> dict[str, int]:
        """See `Root.sizes`."""
        found = list_objects(self._bucket, self._key(prefix))
        return {entry["Key"].removeprefix(self._prefix): entry["Size"] for entry in found}

    def folders(self, prefix: str) -> list[str]:
        """See `Root.folders`."""
        base = self._key(prefix)
        pages = client().get_paginator("list_objects_v2")
        with storage_errors(f"cannot list {self.path(prefix)}"):
            found = [
                entry["Prefix"].removeprefix(base).rstrip("/")
                for page in pages.paginate(Bucket=self._bucket, Prefix=base, Delimiter="/")
                for entry in page.get("CommonPrefixes", [])
            ]
        return sorted(found)

    def publish(self, key: str, local: Path) -> Published:
        """See `Root.publish`: the store compares the sha256 before it keeps the object.

        Beyond 64 MiB the upload goes in parts, each with its own sha256.
        """
        stored = Published(local.stat().st_size, sha256_file(local))
        with storage_errors(f"cannot write {self.path(key)}"):
            if stored.bytes <= _ONE_PUT:
                with local.open("rb") as body:
                    client().put_object(
                        Bucket=self._bucket,
                        Key=self._key(key),
                        Body=body,
                        ChecksumSHA256=base64.b64encode(bytes.fromhex(stored.sha256)).decode(),
                    )
            else:
                client().upload_file(
                    str(local),
                    self._bucket,
                    self._key(key),
                    ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                    Config=TransferConfig(_ONE_PUT, multipart_chunksize=_ONE_PUT),
                )
        return stored

    def size(self, key: str) -> int | None:
        """See `Root.size`."""
        with storage_errors(f"cannot read {self.path(key)}"):
            try:
                head = client().head_object(Bucket=self._bucket, Key=self._key(key))
            except failures.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
            return int(head["ContentLength"])

    def delete(self, keys: Iterable[str]) -> None:
        """See `Root.delete`."""
        objects = [{"Key": self._key(key)} for key in keys]
        for start in range(0, len(objects), _DELETE_AT_ONCE):
            some = objects[start : start + _DELETE_AT_ONCE]
            with storage_errors(f"cannot delete under {self.uri}"):
                answer = client().delete_objects(
                    Bucket=self._bucket, Delete={"Objects": some, "Quiet": True}
                )
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise StorageError(f"cannot delete {first['Key']}: {first['Code']}")

    def stale_uploads(self, prefix: str, older_than_s: float) -> list[str]:
        """See `Root.stale_uploads`: multipart uploads that nobody completed, as 'key upload-id'."""
        now = datetime.now(UTC)
        pages = client().get_paginator("list_multipart_uploads")
        with storage_errors(f"cannot list uploads of {self.uri}"):
            found = [
                f"{upload['Key'].removeprefix(self._prefix)} {upload['UploadId']}"
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._key(prefix))
                for upload in page.get("Uploads", [])
                if (now - upload["Initiated"]).total_seconds() > older_than_s
            ]
        return sorted(found)

    def drop_upload(self, upload: str) -> None:
        """See `Root.drop_upload`."""
        key, _, upload_id = upload.rpartition(" ")
        with storage_errors(f"cannot abort the upload of {self.path(key)}"):
            client().abort_multipart_upload(
                Bucket=self._bucket, Key=self._key(key), UploadId=upload_id
            )

    def check_writes(self) -> None:
        """See `Root.check_writes`: some servers take the conditional headers and ignore them."""
        probe = f".self-test-{uuid.uuid4().hex}"
        check_conditional_writes(self, probe)
        # `swap` compares before it writes, so that If-Match itself was not tried yet.
        try:
            self.create_once(probe, b"one " + probe.encode())
            ignored = self._put_if(probe, b"two", {"IfMatch": f'"{"0" * 32}"'})
        finally:
            self.delete([probe])
        if ignored:
            raise StorageError(f"{self.uri} does not keep conditional writes (If-Match is ignored)")

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key, self.uri)

    def _get(self, key: str) -> tuple[bytes, str] | None:
        return get_object(self._bucket, self._key(key))

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        """A conditional write, by one request at a time.

        The SDK would try again after a lost answer and then report its own write as somebody
        else's. So each try is single, and after anything but a clear yes the object itself says
        who won.
        """
        with storage_errors(f"cannot write {self.path(key)}"):
            for attempt in stamina.retry_context(on=_Unclear, attempts=TRIES, timeout=None):
                with attempt:
                    outcome = self._put_once(key, data, condition)
                    if outcome is True:
                        return True
                    found = self._get(key)
                    if found is not None and found[0] == data:
                        return True
                    if outcome is False:
                        return False
                    raise _Unclear from outcome
        raise AssertionError("unreachable: the retries end in an error")

    def _put_once(self, key: str, data: bytes, condition: dict[str, str]) -> Any:
        """True: written. False: the condition did not hold. Otherwise what went wrong."""
        try:
            client(tries=1).put_object(
                Bucket=self._bucket,
                Key=self._key(key),
                Body=data,
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
                **condition,
            )
            return True
        except failures.ClientError as error:
            code = _code(error)
            if code in _LOST:
                return False
            if "IfMatch" in condition and code in _ABSENT:
                return False
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            if status < 500 and status not in _TRY_AGAIN and code not in _TRY_AGAIN:
                raise
            return error
        except (failures.BotoCoreError, HTTPError) as error:
            if isinstance(error, _HOPELESS):
                raise
            return error


class _Unclear(Exception):
    """A conditional write of which nobody knows yet whether it happened."""


_HOPELESS = (
    failures.NoCredentialsError,
    failures.PartialCredentialsError,
    failures.ParamValidationError,
    failures.ProfileNotFound,
)


def get_object(bucket: str, key: str) -> tuple[bytes, str] | None:
    """Body and ETag of an object, or None; a body that breaks off is fetched again."""
    with storage_errors(f"cannot read s3://{bucket}/{key}"):
        for attempt in stamina.retry_context(on=_Unclear, attempts=TRIES, timeout=None):
            with attempt:
                try:
                    answer = client().get_object(Bucket=bucket, Key=key)
                except failures.ClientError as error:
                    if _code(error) in _ABSENT:
                        return None
                    raise
                try:
                    return answer["Body"].read(), answer["ETag"]
                except (failures.BotoCoreError, HTTPError, OSError) as error:
                    raise _Unclear from error
    raise AssertionError("unreachable: the retries end in an error")


def list_objects(bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Every object under a prefix in the order of the keys: Key, Size, ETag, LastModified."""
    pages = client().get_paginator("list_objects_v2")
    with storage_errors(f"cannot list s3://{bucket}/{prefix}"):
        found = [
            entry
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for entry in page.get("Contents", [])
        ]
    return sorted(found, key=lambda entry: str(entry["Key"]))


def _broke_off(error: Exception) -> bool:
    """A failure while the body was read: the SDK's own retries end where the headers do."""
    broken = (
        failures.IncompleteReadError,
        failures.ResponseStreamingError,
        failures.ReadTimeoutError,
        failures.ConnectionClosedError,
        failures.HTTPClientError,
        HTTPError,
    )
    return isinstance(error, broken)


def _code(error: failures.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Failures of the SDK as one message that says what to do; keys and signatures stay out."""
    try:
        yield
    except (failures.NoCredentialsError, failures.PartialCredentialsError):
        raise StorageError(
            f"{what}: no credentials found. Set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where an instance role gives them"
        ) from None
    except failures.ClientError as error:
        code = _code(error)
        if code == "NoSuchBucket":
            raise StorageError(f"{what}: the bucket does not exist") from None
        if code in _REFUSED:
            raise StorageError(f"{what}: {_REFUSED[code]} ({code})") from None
        message = error.response.get("Error", {}).get("Message", "")
        raise StorageError(f"{what}: {code} {message} after up to {TRIES} tries") from None
    except (failures.EndpointConnectionError, failures.ConnectTimeoutError) as error:
        raise StorageError(
            f"{what}: nothing answers at {endpoint_of_environment() or 'AWS'} "
            f"({type(error).__name__}) after {TRIES} tries"
        ) from None
    except _Unclear as error:
        raise StorageError(f"{what} after {TRIES} tries: {error.__cause__}") from None
    except _Failure as error:
        raise StorageError(f"{what} after {TRIES} tries: {error}") from None
    except OSError as error:
        raise StorageError(f"{what}: {error}") from None
