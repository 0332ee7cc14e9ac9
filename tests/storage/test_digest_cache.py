"""Digests of the user's data: content decides, and nothing is read twice without need."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from genai_core.errors import DataError
from genai_core.storage import digest_cache
from genai_core.storage.digest import digest_file
from genai_core.storage.digest_cache import DigestCache, digest_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files whose bytes are read from now on; every file counts as settled."""
    names: list[str] = []
    monkeypatch.setattr(digest_cache, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(digest_cache, "digest_file", lambda path: names.append(path.name) or digest_file(path))
    return names


def test_a_folder_is_its_names_and_bytes(tmp_path: Path, read: list[str]) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    (data / "sub").mkdir(parents=True)
    (data / "a.txt").write_text("one")
    (data / "sub" / "b.txt").write_text("two")
    first = digest_path(data, cache)
    assert digest_path(data, cache) == first and read == ["a.txt", "b.txt"]
    data.rename(tmp_path / "moved")
    assert digest_path(tmp_path / "moved", cache) == first, "the place is not in it"
    (tmp_path / "moved" / "c.txt").write_text("three")
    second = digest_path(tmp_path / "moved", cache)
    assert second != first and read[4:] == ["c.txt"]
    (tmp_path / "moved" / "c.txt").rename(tmp_path / "moved" / "d.txt")
    assert digest_path(tmp_path / "moved", cache) not in {first, second}


def test_a_change_that_hides_its_time_is_seen(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = digest_path(path, tmp_path / "cache")
    stat = path.stat()
    path.write_text("eno")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest_path(path, tmp_path / "cache") != first
    path.write_text("one")
    assert digest_path(path, tmp_path / "cache") == first == digest_file(path)


def test_a_file_that_has_just_changed_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    monkeypatch.setattr(digest_cache, "_stamp", lambda path: "a clock that ticks once a second")
    cache = DigestCache(tmp_path / "cache")
    first = cache.file(path)
    path.write_text("two")
    assert cache.file(path) != first


def test_a_damaged_cache_is_an_empty_cache(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    cache = DigestCache(tmp_path / "cache")
    first = cache.file(path)
    (tmp_path / "cache" / "digests.db").write_bytes(b"not a database" * 1000)
    assert cache.file(path) == first and cache.file(path) == first
    assert read == ["a.txt", "a.txt"]
    with sqlite3.connect(tmp_path / "cache" / "digests.db") as database:
        assert database.execute("SELECT count(*) FROM digests").fetchone() == (1,)
    database.close()


def test_what_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in {"none": "does not exist", "empty": "holds no file"}.items():
        with pytest.raises(DataError, match=f"{name} {words}"):
            digest_path(tmp_path / name, tmp_path / "cache")
