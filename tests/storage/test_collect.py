"""Garbage collection: ancestors, runs, pins and live claims stay; the rest goes, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import dead_owner, write_files

from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.collect import collect, record_run
from genai_core.storage.folder import FolderStore
from genai_core.storage.owner import this_process

ME = this_process("this test")


def key(letter: str) -> str:
    return letter * 64


def make(store: ArtifactStore, tmp_path: Path, letter: str, *inputs: ArtifactRef) -> ArtifactRef:
    claim = acquire(store.objects, key(letter), ME, stale_seconds=60, wait=False)
    assert isinstance(claim, Claim)
    output = write_files(tmp_path / f"out-{letter}-{claim.attempt}", data=letter.encode() * 100)
    told = {"inputs": {f"input{n}": ref for n, ref in enumerate(inputs)}}
    return store.publish(claim, ArtifactKind.DATASET, letter, output, told)


def grow_old(store: ArtifactStore, days: float = 30) -> None:
    assert isinstance(store.objects, FolderStore)
    for path in store.objects.root.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * 86400
            os.utime(path, (then, then))


def left(store: ArtifactStore) -> str:
    return "".join(sorted(ref.name for ref in store.list()))


@pytest.fixture
def family(store: ArtifactStore, tmp_path: Path) -> ArtifactStore:
    """Return a store with source -> a -> b -> c, and d, e, f, g alone."""
    source = ArtifactRef(kind=ArtifactKind.SOURCE, name="text", version="1", digest="d", uri="u")
    a = make(store, tmp_path, "a", source)
    b = make(store, tmp_path, "b", a)
    make(store, tmp_path, "c", b, a)
    for letter in "defg":
        make(store, tmp_path, letter)
    grow_old(store)
    return store


def test_a_root_keeps_its_ancestors(family: ArtifactStore) -> None:
    done = collect(family, [key("c")], dry_run=False)
    assert left(family) == "abc" and sorted(done.kept) == [key("a"), key("b"), key("c")]
    assert [item.path for item in done.removed] == [f"artifacts/{key(letter)}" for letter in "defg"]
    assert family.verify_all() == []
    assert not (family.objects.local_path(f"artifacts/{key('d')}") or Path()).exists()


def test_a_dry_run_says_the_same_and_deletes_nothing(family: ArtifactStore) -> None:
    told = collect(family, [key("c")])
    assert left(family) == "abcdefg" and family.verify_all() == []
    size = sum(entry.size for letter in "defg" for entry in family.objects.list(f"artifacts/{key(letter)}"))
    assert told.size == size > 400
    assert collect(family, [key("c")], dry_run=False).removed == told.removed


def test_runs_and_pins_are_roots(family: ArtifactStore) -> None:
    for run, letter in (("run-1", "d"), ("run-2", "e"), ("run-3", "f")):
        record_run(family.objects, run, [key(letter)])
    first = record_run(family.objects, "run-1", [key("d"), key("b")])
    assert first == next(entry.path for entry in family.objects.list("runs/")), "a record keeps its place"
    family.pin(key("g"))
    collect(family, [], keep_runs=2, dry_run=False)
    assert left(family) == "efg"
    assert len(list(family.objects.list("runs/"))) == 2


def test_a_live_claim_keeps_its_inputs_and_a_dead_one_does_not(family: ArtifactStore) -> None:
    acquire(family.objects, key("1"), ME, stale_seconds=60, inputs=[key("b")])
    acquire(family.objects, key("2"), dead_owner(), stale_seconds=60, inputs=[key("d")])
    collect(family, [], dry_run=False)
    assert left(family) == "ab"


def test_what_was_just_published_stays(family: ArtifactStore, tmp_path: Path) -> None:
    make(family, tmp_path, "h")
    collect(family, [], dry_run=False)
    assert left(family) == "h"


def test_what_was_collected_is_computed_again(family: ArtifactStore, tmp_path: Path) -> None:
    before = family.find(key("d"))
    collect(family, [], dry_run=False)
    assert family.find(key("d")) is None
    assert make(family, tmp_path, "d") == before
    assert family.manifest(key("d"))["base"] == "a2"


def test_files_of_unpublished_attempts_go(family: ArtifactStore, tmp_path: Path) -> None:
    family.discard(key("a"), "--refresh")
    make(family, tmp_path, "a")
    assert [item.reason for item in collect(family, [key("a")], keep_runs=0).removed if "a" * 64 in item.path] == []
    grow_old(family)
    removed = collect(family, [key("a")], dry_run=False).removed
    assert [item.reason for item in removed if "a" * 64 in item.path] == ["files of an attempt that is not published"]
    assert {entry.path.split("/")[2] for entry in family.objects.list(f"artifacts/{key('a')}")} == {
        "a2",
        "manifest.json",
    }
    assert left(family) == "a" and family.verify_all() == []


def test_an_old_workspace_goes_unless_somebody_holds_it(family: ArtifactStore) -> None:
    for letter in "123":
        family.objects.put(f"work/{key(letter)}/checkpoint", b"state")
    acquire(family.objects, key("2"), ME, stale_seconds=60)
    grow_old(family)
    family.objects.put(f"work/{key('3')}/checkpoint", b"new state")
    collect(family, [], dry_run=False)
    assert [entry.path for entry in family.objects.list("work/")] == [
        f"work/{key('2')}/checkpoint",
        f"work/{key('3')}/checkpoint",
    ]


def test_a_damaged_manifest_is_collected_like_any_other(family: ArtifactStore) -> None:
    family.objects.put(f"artifacts/{key('d')}/manifest.json", b"{")
    grow_old(family)
    collect(family, [key("c")], dry_run=False)
    assert family.verify_all() == [] and left(family) == "abc"


def test_a_run_id_is_a_plain_name(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="plain name"):
        record_run(store.objects, "../x", [])
