"""The folder store: whole objects or none, one winner, nothing outside, and failures that say what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.errors import ConfigError, DiskFullError, StorageError
from genai_core.storage.folder import FolderStore
from genai_core.storage.open import open_store

RACER = """
import sys
from pathlib import Path
from genai_core.storage.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
won = [n for n in range(150) if store.put_if_absent(f"race/{n}", sys.argv[2].encode() * 1000)]
print(*won)
"""


def test_an_object_comes_back_as_it_was_put(folder: FolderStore, tmp_path: Path) -> None:
    folder.put("a/b", b"one")
    folder.put("a/b", b"two")
    (tmp_path / "local").write_bytes(b"three")
    folder.put_file("a/c", tmp_path / "local")
    folder.get_file("a/c", tmp_path / "deep" / "back")
    assert (folder.get("a/b"), folder.get("a/c"), folder.get("a"), folder.get("a/b/c")) == (
        b"two",
        b"three",
        None,
        None,
    )
    assert (tmp_path / "deep" / "back").read_bytes() == b"three"
    folder.delete("a/b")
    folder.delete("a/b")
    assert folder.get("a/b") is None
    with pytest.raises(StorageError, match="a/none"):
        folder.get_file("a/none", tmp_path / "x")
    assert not list(folder.root.glob(".drafts/*"))


def test_many_threads_and_one_object(folder: FolderStore) -> None:
    start, wins = threading.Barrier(8), []

    def write(name: str) -> None:
        start.wait()
        wins.extend((n, name) for n in range(50) if folder.put_if_absent(f"race/{n}", name.encode()))

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n, _ in wins) == list(range(50))
    assert all(folder.get(f"race/{n}") == name.encode() for n, name in wins)


def test_many_processes_and_one_object(folder: FolderStore) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(folder.root), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abcd"
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = {name: racer.communicate()[0].split() for name, racer in zip("abcd", racers, strict=True)}
    assert Counter(n for won in wins.values() for n in won) == {str(n): 1 for n in range(150)}
    assert all(folder.get(f"race/{n}") == name.encode() * 1000 for name, won in wins.items() for n in won)


def test_without_hard_links_there_is_still_one_winner(folder: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert folder.put_if_absent("x/y", b"1")
    assert not folder.put_if_absent("x/y", b"2")
    assert folder.get("x/y") == b"1"
    source = folder.root / "source"
    source.write_bytes(b"3")
    folder.link_file("x/z", source)
    assert folder.get("x/z") == b"3"


def test_a_linked_file_is_copied_where_someone_else_has_its_name(folder: FolderStore, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for path in (alone, shared):
        path.write_bytes(b"data")
    os.link(shared, tmp_path / "the user's own name")
    folder.link_file("alone", alone)
    folder.link_file("shared", shared)
    assert (folder.root / "alone").samefile(alone)
    (tmp_path / "the user's own name").write_bytes(b"edited")
    assert folder.get("shared") == b"data"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".drafts/x", "a\\..\\x", "a\0b"])
def test_a_path_stays_inside(folder: FolderStore, path: str) -> None:
    with pytest.raises(StorageError, match="not a path inside"):
        folder.put(path, b"")
    with pytest.raises(StorageError, match="not a path inside"):
        folder.get(path)


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.text("ab.-", min_size=1, max_size=3).filter(lambda name: set(name) - {"."}), max_size=8),
    st.text("ab/", max_size=3),
)
def test_a_listing_is_in_path_order(names: set[str], prefix: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        store = FolderStore(Path(root))
        paths = sorted({f"{a}/{b}" for a in names for b in names} | {f"{a}-file" for a in names})
        for path in paths:
            store.put(path, b"x")
        asked = prefix.lstrip("/")
        assert [entry.path for entry in store.list(asked)] == [path for path in paths if path.startswith(asked)]


def test_deleting_the_last_object_of_a_folder_does_not_lose_the_next(folder: FolderStore) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            folder.put("a/b/c/gone", b"")
            folder.delete("a/b/c/gone")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for n in range(60):
            folder.put(f"a/b/c/{n}", b"kept")
            folder.delete(f"a/b/c/{n}")
    finally:
        stop.set()
        thread.join()


class Mounted:
    """A one-megabyte disk of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        self.path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.path)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no right to mount a small disk here: {done.stderr.decode().strip()}")
        return self.path

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.path)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with Mounted(tmp_path / "disk") as disk:
        store = FolderStore(disk / "store")
        store.put("old", b"before")
        (tmp_path / "big").write_bytes(b"x" * 2_000_000)
        for write in (
            lambda: store.put("old", b"x" * 2_000_000),
            lambda: store.put_if_absent("new", b"x" * 2_000_000),
            lambda: store.put_file("old", tmp_path / "big"),
        ):
            with pytest.raises(DiskFullError, match=r"No space left.*run again"):
                write()
        assert store.get("old") == b"before"
        assert store.get("new") is None
        assert not list((disk / "store" / ".drafts").iterdir())


def test_a_read_only_store_is_the_users_mistake(tmp_path: Path) -> None:
    with Mounted(tmp_path / "disk") as disk:
        open_store(str(disk))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ConfigError, match=r"disk.*write permission.*--storage"):
            open_store(str(disk))
        with pytest.raises(ConfigError, match=r"disk.*--storage"):
            open_store(str(disk / "new"))


def test_a_store_that_is_a_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        open_store(str(tmp_path / "file"))


def test_an_address_says_where(tmp_path: Path) -> None:
    plain = open_store(str(tmp_path / "a b"))
    assert isinstance(plain, FolderStore)
    again = open_store(plain.uri)
    assert isinstance(again, FolderStore) and again.root == plain.root
    assert not list(plain.list("")), "the probe left something behind"
    for uri, words in {
        "gs://bucket/x": "'gs' is not known",
        "": "empty",
        "file://host/x": "names the host",
        "s3://": "s3://bucket/prefix",
    }.items():
        with pytest.raises(ConfigError, match=words):
            open_store(uri)


class Careless(FolderStore):
    """A store without exclusive creation, as some S3 servers are."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self.put(path, data)
        return True


def test_a_store_without_exclusive_creation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genai_core.storage.open.FolderStore", Careless)
    with pytest.raises(ConfigError, match="If-None-Match"):
        open_store(str(tmp_path / "x"))
