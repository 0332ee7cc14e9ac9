"""From an address to a store, and a proof that it can be used, before anything else is done."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from genai_core.config.settings import Settings, read_settings
from genai_core.errors import ConfigError, DiskFullError, StorageError, TransientError
from genai_core.storage.folder import FolderStore
from genai_core.storage.objects import ObjectStore


def open_store(
    uri: str, settings: Settings | None = None, probe: bool = True, patience_seconds: float | None = None
) -> ObjectStore:
    """Return the store at an address: a folder, file:///folder or s3://bucket/prefix.

    With `probe`, a small object is written, refused a second time, and deleted. Raises ConfigError if the address is
    wrong or what is there cannot be written to, StorageError if it cannot be reached for so many seconds; 30 unless they are given.
    """
    parts = urlsplit(uri)
    if not uri.strip():
        raise ConfigError("The storage address is empty. Give a folder or s3://bucket/prefix.")
    try:
        objects = _open(uri, settings, patience_seconds)
        if probe:
            _probe(objects, uri)
    except DiskFullError:
        raise
    except TransientError as error:
        raise StorageError(str(error)) from error
    except StorageError as error:
        if parts.scheme == "s3":
            raise
        raise ConfigError(f"Storage {uri!r} cannot be used. {error}") from error
    return objects


def _open(uri: str, settings: Settings | None, patience_seconds: float | None) -> ObjectStore:
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        from genai_core.storage.s3 import S3Store

        return S3Store(uri, settings or read_settings(), patience_seconds)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise ConfigError(
                f"Storage {uri!r} names the host {parts.netloc!r}: write file:///folder, with three slashes."
            )
        return FolderStore(Path(unquote(parts.path)))
    if "://" in uri:
        raise ConfigError(
            f"Storage scheme {parts.scheme!r} is not known. Give a folder, file:///folder or s3://bucket/prefix."
        )
    return FolderStore(Path(uri))


def _probe(objects: ObjectStore, uri: str) -> None:
    path = f"probe-{uuid.uuid4().hex}"
    if not objects.put_if_absent(path, b"1") or objects.get(path) != b"1":
        raise ConfigError(f"Storage {uri!r} does not give back what was written to it. Choose another.")
    again = objects.put_if_absent(path, b"2")
    objects.delete(path)
    if again:
        raise ConfigError(
            f"Storage {uri!r} lets two writers create the same object (it ignores If-None-Match: *), so two runs "
            "could publish over each other. Choose a server with conditional writes: AWS, SeaweedFS, MinIO, Ceph."
        )
