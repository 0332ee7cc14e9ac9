"""What the platform needs of an object store: six operations, one of them a write that happens only once.

`put_if_absent` is the only synchronisation primitive in the house: claims and manifests stand on it. A folder does
it with a hard link, S3 with `If-None-Match: *`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One object: its path below the store's root, with forward slashes, its size in bytes, when it was written."""

    path: str
    size: int
    modified: float = 0.0
    """Seconds since the epoch, by the store's clock; only for ages of hours and days."""


class ObjectStore(Protocol):
    """Bytes under slash-separated paths."""

    @property
    def uri(self) -> str:
        """Return the store's address, without credentials."""
        ...

    def get(self, path: str) -> bytes | None:
        """Return the bytes of an object, or None if there is none."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write an object, atomically, replacing what was there."""
        ...

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; return whether it was written. Exactly one of many callers wins."""
        ...

    def delete(self, path: str) -> None:
        """Delete an object; nothing happens if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose path starts with the prefix, in path order."""
        ...

    def put_file(self, path: str, source: Path) -> None:
        """Copy a local file into the store, atomically."""
        ...

    def get_file(self, path: str, target: Path) -> None:
        """Copy an object to a local file. Raises StorageError if there is none."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Return where the object or directory lies on this machine, or None if the store is elsewhere."""
        ...
