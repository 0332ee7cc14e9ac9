"""Digests of local files, computed once: content decides, and the cache knows when it may have changed.

A cached digest holds for one (path, size, modification time, change time, inode). The change time cannot be set back
by a program, so a file whose modification time was restored after an edit is read again. A file changed within the
last two seconds is never cached: a later change in the same tick of its clock would go unseen.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from genai_core.errors import DataError
from genai_core.storage.digest import digest_entries, digest_file

SETTLED_SECONDS = 2.0


class DigestCache:
    """sha256 of files by what the file system says about them, in one SQLite file that may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "digests.db"

    def file(self, path: Path) -> str:
        """Return the sha256 of a file's bytes, hexadecimal."""
        return self.files([path])[0]

    def files(self, paths: Iterable[Path]) -> list[str]:
        """Return the sha256 of every file, in order."""
        with self._open() as cache:
            return [_digest(cache, path) for path in paths]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=60)) as cache:
            try:
                cache.execute("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)")
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._path.unlink(missing_ok=True)  # not a database: a cache that is damaged is an empty cache
                with self._open() as fresh:
                    yield fresh
                return
            yield cache
            cache.commit()


def digest_path(path: Path, cache_dir: Path) -> str:
    """Return the digest of a file's bytes, or of a folder's files with their relative paths. Raises DataError."""
    path = path.expanduser().absolute()
    cache = DigestCache(cache_dir)
    if path.is_file():
        return cache.file(path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist or is not a file or folder. Correct the path.")
    files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    files = [file for file in files if file.is_file()]
    if not files:
        raise DataError(f"{path} holds no file. Put the data there, or correct the path.")
    digests = cache.files(files)
    return digest_entries(
        (file.relative_to(path).as_posix(), file.stat().st_size, digest)
        for file, digest in zip(files, digests, strict=True)
    )


def _digest(cache: sqlite3.Connection, path: Path) -> str:
    name, stamp = str(path), _stamp(path)
    row = cache.execute("SELECT sha256 FROM digests WHERE path = ? AND stamp = ?", (name, stamp)).fetchone()
    if row is not None:
        return str(row[0])
    digest = digest_file(path)
    stat = path.stat()
    if _stamp(path) == stamp and time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED_SECONDS:
        cache.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (name, stamp, digest))
        # at once: a lock held over the hashing of gigabytes would keep every other process waiting
        cache.commit()
    return digest


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
