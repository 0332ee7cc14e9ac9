"""An object store below s3://bucket/prefix, and the user's data below one: the only door to boto3.

Exclusive creation is `If-None-Match: *`. Objects that S3 cannot reach are tried again for 30 seconds in all; then the
error names the address. Keys and secrets are never part of an address, a message or a repr.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, DataError, DiskFullError, StorageError, TransientError, is_disk_full
from genai_core.storage.digest import digest_json
from genai_core.storage.objects import Entry

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
CONNECT_SECONDS, READ_SECONDS = 5, 60
REFUSED = {
    "403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthorizationHeaderMalformed", "InvalidSecurity", "PermanentRedirect", "301",
}  # fmt: skip
MISSING = {"404", "NoSuchKey"}
TAKEN = {"412", "PreconditionFailed"}
CONFLICT = {"409", "ConditionalRequestConflict", "OperationAborted"}


@dataclass(frozen=True, slots=True)
class S3Address:
    """s3://bucket/prefix; the prefix has no slash at its ends and may be empty."""

    bucket: str
    prefix: str

    @staticmethod
    def parse(uri: str) -> S3Address:
        """Return the parts of an address. Raises ConfigError; credentials in an address are refused, not shown."""
        parts = urlsplit(uri)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(
                "An S3 address may hold only s3://bucket/prefix. Give credentials with GENAI_S3_ACCESS_KEY and "
                "GENAI_S3_SECRET_KEY, and the server with GENAI_S3_ENDPOINT_URL."
            )
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigError(f"{uri!r} is not an S3 address. Write s3://bucket/prefix.")
        return S3Address(parts.netloc, parts.path.strip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class S3Store:
    """The ObjectStore protocol below one prefix of a bucket."""

    def __init__(self, uri: str, settings: Settings, patience_seconds: float | None = None) -> None:
        self._address = S3Address.parse(uri)
        self._s3 = _Connection(self._address, settings, patience_seconds)
        self.server = endpoint_of(settings)
        self._prefix = f"{self._address.prefix}/" if self._address.prefix else ""
        self._encryption: dict[str, Any] = (
            {"ServerSideEncryption": settings.s3_encryption} if settings.s3_encryption else {}
        )
        if settings.s3_kms_key:
            self._encryption["SSEKMSKeyId"] = settings.s3_kms_key

    def __repr__(self) -> str:
        return f"S3Store({self.uri})"

    @property
    def uri(self) -> str:
        """Return s3://bucket/prefix."""
        return str(self._address)

    def get(self, path: str) -> bytes | None:
        """Return the bytes of an object, or None if there is none."""

        def read(client: Any) -> bytes:
            return bytes(client.get_object(**self._at(path))["Body"].read())

        try:
            return self._s3.call(read)
        except _MissingError:
            return None

    def put(self, path: str, data: bytes) -> None:
        """Write an object, atomically, replacing what was there."""
        self._s3.call(lambda client: client.put_object(**self._at(path), Body=data, **self._encryption))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; return whether it was written. Exactly one of many callers wins."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._s3.call(
                    lambda client: client.put_object(**self._at(path), Body=data, IfNoneMatch="*", **self._encryption)
                )
                return True
            except _TakenError:
                return False
            except _ConflictError as error:
                # two writers met; the other may still fail, so the object decides, not the answer
                if self.get(path) is not None:
                    return False
                if time.monotonic() > deadline:
                    raise TransientError(f"{self.uri} keeps refusing to create {path}: {error}") from error
                time.sleep(0.2)

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens if there is none."""
        self._s3.call(lambda client: client.delete_object(**self._at(path)))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose path starts with the prefix, in path order."""
        for row in self._s3.rows(self._prefix + prefix):
            modified = row["LastModified"].timestamp() if "LastModified" in row else 0.0
            yield Entry(row["Key"][len(self._prefix) :], row["Size"], modified)

    def put_file(self, path: str, source: Path) -> None:
        """Copy a local file into the store; a large one in parts, which become an object only when all are there."""
        at = self._at(path)
        self._s3.call(
            lambda client: client.upload_file(str(source), at["Bucket"], at["Key"], ExtraArgs=self._encryption)
        )

    def get_file(self, path: str, target: Path) -> None:
        """Copy an object to a local file, atomically. Raises StorageError if there is none."""
        self._s3.download(self._at(path)["Key"], target)

    def local_path(self, path: str) -> Path | None:
        """Return None: the store is elsewhere."""
        return None

    def _at(self, path: str) -> dict[str, str]:
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise StorageError(f"{path!r} is not a path inside the store {self.uri}: no '..', no '/' at the start.")
        return {"Bucket": self._address.bucket, "Key": self._prefix + path}


def endpoint_of(settings: Settings) -> str:
    """Return the URL of the S3 server that settings name: anybody may ask it for the time."""
    return settings.s3_endpoint_url or f"https://s3.{settings.s3_region or 'us-east-1'}.amazonaws.com"


def digest_prefix(uri: str, settings: Settings) -> str:
    """Return the digest of what lies below s3://bucket/prefix: relative names, sizes and ETags.

    An ETag moves whenever the bytes do (it is their MD5, or a fresh value for encrypted and multipart objects), so a
    change is never missed; the same bytes uploaded again in another way may count as new. Raises DataError if there
    is nothing.
    """
    address = S3Address.parse(uri)
    return _digest_rows(_data_rows(address, _Connection(address, settings)))


def fetch_prefix(uri: str, target: Path, settings: Settings, *, digest: str = "") -> Path:
    """Return `target`, now a folder of what lies below s3://bucket/prefix.

    The folder appears only when it is whole; if it is there already, nothing is fetched, so name it by its digest.
    With `digest`, what lies there now must still be what `digest_prefix` saw. Raises DataError.
    """
    if target.is_dir():
        return target
    address = S3Address.parse(uri)
    connection = _Connection(address, settings)
    rows = _data_rows(address, connection)
    if digest and _digest_rows(rows) != digest:
        raise DataError(f"{address} has changed since this run looked at it. Run again, to use what is there now.")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        for relative, row in rows:
            connection.download(row["Key"], draft / relative)
        if _digest_rows(_data_rows(address, connection)) != _digest_rows(rows):
            raise DataError(f"{address} changed while it was fetched. Run again when nobody writes to it.")
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():  # another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _data_rows(address: S3Address, connection: _Connection) -> list[tuple[str, dict[str, Any]]]:
    """Return (relative path, listing row) of the object of that very name, or of all below it as a folder."""
    rows = []
    for row in connection.rows(address.prefix):
        key: str = row["Key"]
        if key == address.prefix:
            relative = PurePosixPath(key).name
        elif not address.prefix or key.startswith(f"{address.prefix}/"):
            relative = key[len(address.prefix) :].lstrip("/")
        else:
            continue  # s3://bucket/text does not mean s3://bucket/text-old
        if key.endswith("/"):
            continue  # a folder's marker
        if ".." in PurePosixPath(relative).parts:
            raise DataError(f"The object {key!r} of {address} would be written outside its folder. Rename it.")
        rows.append((relative, row))
    if not rows:
        raise DataError(f"No object lies below {address}. Correct the address, or put the data there.")
    return rows


def _digest_rows(rows: list[tuple[str, dict[str, Any]]]) -> str:
    return digest_json(sorted([relative, row["Size"], row.get("ETag", "")] for relative, row in rows))


class _MissingError(Exception):
    """There is no such object."""


class _TakenError(Exception):
    """There is such an object already."""


class _ConflictError(Exception):
    """Somebody else is writing the object at this moment."""


class _Connection:
    """A lazily made boto3 client that turns every failure into one of our errors."""

    def __init__(self, address: S3Address, settings: Settings, patience_seconds: float | None = None) -> None:
        self._address = address
        self._settings = settings
        self._patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        self._made: Any = None

    def call(self, function: Callable[[Any], T]) -> T:
        """Return `function(client)`, tried again until our patience ends while the server is away or overloaded."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + self._patience
        pause = 0.5
        while True:
            try:
                return function(self._client())
            except (BotoCoreError, ClientError, Boto3Error, OSError, ValueError) as error:
                reason = self._explain(error)
            if time.monotonic() + pause > deadline:
                raise TransientError(
                    f"{self._place()} could not be reached for {self._patience:.0f} s ({reason}). "
                    "Check the address and the network, then run again."
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def rows(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield the listing of a key prefix, in key order."""
        asked = {"Bucket": self._address.bucket, "Prefix": prefix}
        while True:
            page = self._page(asked)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _page(self, asked: dict[str, str]) -> dict[str, Any]:
        return self.call(lambda client: dict(client.list_objects_v2(**asked)))

    def download(self, key: str, target: Path) -> None:
        """Copy an object to a local file, atomically. Raises StorageError if there is none."""
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.call(lambda client: client.download_file(self._address.bucket, key, str(draft)))
            draft.replace(target)
        except _MissingError as error:
            raise StorageError(f"{self._place()} has no object {key}.") from error
        finally:
            draft.unlink(missing_ok=True)

    def _client(self) -> Any:
        if self._made is None:
            import boto3
            from botocore.config import Config

            settings = self._settings
            secret, access = settings.s3_secret_key, settings.s3_access_key
            self._made = boto3.session.Session().client(
                "s3",
                endpoint_url=settings.s3_endpoint_url or None,
                region_name=settings.s3_region or ("us-east-1" if settings.s3_endpoint_url else None),
                aws_access_key_id=access.get_secret_value() if access else None,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=Config(
                    connect_timeout=min(CONNECT_SECONDS, self._patience),
                    read_timeout=min(READ_SECONDS, 2 * self._patience),
                    retries={"total_max_attempts": 1},  # ours are the retries, with one clock
                    s3={"addressing_style": "path"} if settings.s3_endpoint_url else None,
                ),
            )
        return self._made

    def _place(self) -> str:
        server = self._settings.s3_endpoint_url
        return f"{self._address} at {server}" if server else str(self._address)

    def _explain(self, error: Exception) -> str:
        """Return why it may go better next time; raise our own error where it will not."""
        from botocore import exceptions as boto

        if isinstance(error, OSError) and is_disk_full(error):
            raise DiskFullError(
                f"No space left while reading from {self._place()}. Free some and run again."
            ) from error
        if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
            raise StorageError(f"A local file failed while talking to {self._place()}: {error}.") from error
        if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound)):
            raise ConfigError(
                f"No credentials for {self._place()}. Set GENAI_S3_ACCESS_KEY and GENAI_S3_SECRET_KEY."
            ) from None
        if isinstance(error, (boto.ParamValidationError, boto.InvalidRegionError, ValueError)):
            raise ConfigError(f"{self._place()} is not a usable S3 address ({type(error).__name__}).") from None
        code, status = _code_of(error)
        if code in MISSING:
            raise _MissingError from None
        if code in TAKEN:
            raise _TakenError from None
        if code in CONFLICT:
            raise _ConflictError(code) from None
        if code == "NoSuchBucket":
            raise ConfigError(f"There is no bucket {self._address.bucket!r} at {self._place()}. Create it.") from None
        if code == "RequestTimeTooSkewed":
            raise ConfigError(
                f"{self._place()} refuses us because its clock and ours differ by more than a quarter of an hour. Set "
                "the clock of this machine (timedatectl set-ntp true)."
            ) from None
        if code in REFUSED or status in {401, 403}:
            raise ConfigError(
                f"{self._place()} refuses our credentials ({code}). Check GENAI_S3_ACCESS_KEY, GENAI_S3_SECRET_KEY and "
                "what they may do: read, write, list and delete."
            ) from None
        if code and status < 500 and code not in {"SlowDown", "RequestTimeout", "429", "Throttling"}:
            raise StorageError(f"{self._place()} answered {code}.") from None
        return code or type(error).__name__


def _code_of(error: Exception) -> tuple[str, int]:
    """Return S3's error code and the HTTP status, '' and 0 if there was no answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, Exception) and isinstance(getattr(cause, "response", None), dict):
            return _code_of(cause)
        return "", 0
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(response.get("Error", {}).get("Code", status)), int(status)
