"""A store is copied to another: whole, verified, resumed, never over what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import BUCKET
from stores import HookedStore, write_files

from genai_core.config.settings import Settings
from genai_core.errors import ConfigError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.mirror import mirror
from genai_core.storage.objects import ObjectStore
from genai_core.storage.open import open_store
from genai_core.storage.owner import this_process


def publish(store: ArtifactStore, tmp_path: Path, key: str, **files: bytes) -> ArtifactRef:
    claim = acquire(store.objects, key, this_process(key[:4]), stale_seconds=20)
    assert claim is not None
    folder = write_files(tmp_path / f"made-{key[:4]}-{claim.attempt}", **files)
    return store.publish(claim, ArtifactKind.DATASET, key[:4], folder, {"title": "augment"})


@pytest.fixture
def filled(store: ArtifactStore, tmp_path: Path) -> ArtifactStore:
    """A store of three artifacts, one of them computed twice, a pin, a run, unfinished state."""
    for number in range(3):
        publish(store, tmp_path, f"{number}a" * 32, one=b"1" * number, deep__two=b"2" * 1000)
    store.discard("0a" * 32, "for a test")
    publish(store, tmp_path, "0a" * 32, one=b"again")
    store.pin("1a" * 32, "kept")
    store.objects.put("runs/2026-one.json", b"{}")
    store.objects.put(f"work/{'3a' * 32}/step.json", b"7")
    return store


@pytest.fixture(params=["folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "target")
    settings: Settings = request.getfixturevalue("s3_settings")
    return open_store(f"s3://{BUCKET}/mirror-{tmp_path.name}", settings)


def content(objects: ObjectStore) -> dict[str, bytes | None]:
    return {entry.path: objects.get(entry.path) for entry in objects.list("")}


def test_a_mirror_is_a_store_like_the_first_and_is_made_once(
    filled: ArtifactStore, target: ObjectStore, tmp_path: Path
) -> None:
    wanted = mirror(filled, target, dry_run=True)
    assert not list(target.list(""))
    done = mirror(filled, target)
    assert (done.copied, done.there, done.problems) == (wanted.copied, 0, []) == (3, 0, [])
    assert done.bytes == wanted.bytes > 2000
    there = ArtifactStore(target, tmp_path / "scratch-there")
    assert [(ref.key, ref.digest) for ref in there.list()] == [(ref.key, ref.digest) for ref in filled.list()]
    assert not there.verify_all()
    assert there.pins() == filled.pins()
    assert target.get("runs/2026-one.json") == b"{}"
    assert not list(target.list("work/"))

    again = mirror(filled, target)
    assert (again.copied, again.bytes, again.there, again.records) == (0, 0, 3, 0)
    assert mirror(filled, target, unfinished=True).records == 1
    assert target.get(f"work/{'3a' * 32}/step.json") == b"7"

    # what was computed twice goes on with its third attempt there: the second can never be published again
    there.discard("0a" * 32, "for a test")
    assert publish(there, tmp_path, "0a" * 32, one=b"a third time")


def test_what_is_cut_short_is_not_published_and_goes_on(filled: ArtifactStore, tmp_path: Path) -> None:
    puts: list[str] = []

    def cut(operation: str, path: str) -> None:
        puts.append(path)
        if len(puts) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mirror(filled, HookedStore(tmp_path / "target", cut))
    target = FolderStore(tmp_path / "target")
    there = ArtifactStore(target, tmp_path / "scratch-there")
    assert len(there.list()) == 1
    assert not there.verify_all()
    seen: list[str] = []
    done = mirror(filled, HookedStore(tmp_path / "target", lambda operation, path: seen.append(path)))
    assert (done.copied, done.there, done.problems) == (2, 1, [])
    assert not set(puts[:2]) & {path for path in seen if path.startswith("artifacts/")}, "copied twice"
    assert not there.verify_all()


def test_a_damaged_artifact_is_named_and_left_behind(filled: ArtifactStore, target: ObjectStore) -> None:
    key = "1a" * 32
    own = filled.objects.local_path(f"artifacts/{key}/a1/one.bin")
    assert own is not None
    own.chmod(0o644)
    own.write_bytes(b"x")
    done = mirror(filled, target)
    assert done.copied == 2
    [problem] = done.problems
    assert "1a1a" in problem and "one.bin has sha256" in problem
    assert target.get(f"artifacts/{key}/manifest.json") is None


def test_what_is_there_with_other_bytes_stays(filled: ArtifactStore, tmp_path: Path) -> None:
    other = ArtifactStore(FolderStore(tmp_path / "target"), tmp_path / "scratch-there")
    publish(other, tmp_path / "other", "1a" * 32, one=b"another machine's")
    before = content(other.objects)
    done = mirror(filled, other.objects)
    [problem] = done.problems
    assert "is there with other bytes" in problem
    assert {path: data for path, data in content(other.objects).items() if path in before} == before
    assert not other.verify_all()


@pytest.mark.parametrize("place", ["", "inside", ".."])
def test_one_place_is_refused(filled: ArtifactStore, place: str) -> None:
    own = filled.objects.local_path("")
    assert own is not None
    with pytest.raises(ConfigError, match="one place"):
        mirror(filled, FolderStore((own / place).resolve()))
