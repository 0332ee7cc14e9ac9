"""Artifacts: whole and verified, or not there; damage is named and healed; what is discarded is made again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from stores import KEY, Crash, HookedStore, dead_owner, write_files

from genai_core.errors import ClaimLostError, IntegrityError, StorageError
from genai_core.storage import artifacts as artifacts_module
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, Published, acquire
from genai_core.storage.folder import FolderStore
from genai_core.storage.layout import manifest_path
from genai_core.storage.owner import this_process

ME = this_process("this test")
FILES = {"weights": b"w" * 5000, "sub__config": b"{}"}


def publish(store: ArtifactStore, folder: Path, key: str = KEY, **told: Any) -> ArtifactRef:
    claim = acquire(store.objects, key, ME, stale_seconds=60, wait=False)
    assert isinstance(claim, Claim)
    output = write_files(folder / f"output-{key[:4]}-a{claim.attempt}", **FILES)
    return store.publish(claim, ArtifactKind.MODEL, "base", output, {"stage": "pretrain", **told})


def test_what_is_published_is_found_and_fetched(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.find(KEY) is None
    source = ArtifactRef(kind=ArtifactKind.SOURCE, name="text", version="1", digest="d", uri="u")
    ref = publish(store, tmp_path, metrics={"loss": 2.5, "odd": float("nan")}, inputs={"source": source})
    assert ref.version == KEY[:8] and ref.key == KEY and ref.uri == f"{store.objects.uri}/artifacts/{KEY}"
    assert store.find(KEY) == ref and list(store.list()) == [ref]
    path = store.fetch(ref)
    assert {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*.bin")} == {
        "weights.bin": FILES["weights"],
        "sub/config.bin": FILES["sub__config"],
    }
    told = store.manifest(KEY)["told"]
    assert told["metrics"] == {"loss": 2.5, "odd": "nan"} and told["inputs"]["source"]["name"] == "text"
    assert store.verify_all() == []


def test_the_digest_is_of_the_content_and_of_nothing_told(store: ArtifactStore, tmp_path: Path) -> None:
    one = publish(store, tmp_path / "1", key="11" * 32, seconds=1.0)
    two = publish(store, tmp_path / "2", key="22" * 32, seconds=2.0)
    assert one.digest == two.digest and one != two


def test_a_stage_that_wrote_nothing_publishes_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    claim = acquire(store.objects, KEY, ME, stale_seconds=60)
    assert isinstance(claim, Claim)
    with pytest.raises(StorageError, match="wrote no file"):
        store.publish(claim, ArtifactKind.MODEL, "base", tmp_path / "scratch" / "empty", {})
    assert store.find(KEY) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "has other bytes": flip,
    "is missing": Path.unlink,
    "has 4,999 bytes instead of 5,000": lambda path: os.truncate(path, 4999),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_damage_is_named_never_loaded_and_healed(store: ArtifactStore, tmp_path: Path, words: str) -> None:
    ref = publish(store, tmp_path)
    DAMAGE[words](store.fetch(ref) / "weights.bin")
    for read in (lambda: store.find(KEY), lambda: store.fetch(ref)):
        with pytest.raises(IntegrityError, match=rf"base@abababab is damaged: weights.bin {words}.*--refresh pretrain"):
            read()
    (problem,) = store.verify_all()
    assert problem.path.endswith("/a1/weights.bin") and words in problem.what
    assert store.discard(KEY, "--refresh pretrain")
    assert store.find(KEY) is None
    again = publish(store, tmp_path)
    assert again == ref and store.find(KEY) == ref and store.fetch(ref).name == "a2"
    assert store.verify_all() == []


def test_repeated_finds_do_not_read_again(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genai_core.storage import digest_cache

    ref = publish(store, tmp_path)
    path = store.fetch(ref) / "weights.bin"
    monkeypatch.setattr(digest_cache, "SETTLED_SECONDS", -1.0)
    store.find(KEY)
    read: list[Path] = []
    real = digest_cache.digest_file
    monkeypatch.setattr(digest_cache, "digest_file", lambda path: read.append(path) or real(path))
    store.find(KEY)
    assert read == []
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the change time cannot be set back
    with pytest.raises(IntegrityError):
        store.find(KEY)
    assert read == [path]


def test_verify_all_trusts_no_cache(store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = publish(store, tmp_path)
    path = store.fetch(ref) / "weights.bin"
    from genai_core.storage import digest_cache

    monkeypatch.setattr(digest_cache, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(digest_cache, "_stamp", lambda path: "what a broken file system says of every file")
    store.find(KEY)
    flip(path)
    store.find(KEY)
    calls: list[tuple[int, int, str]] = []
    (problem,) = store.verify_all(lambda *call: calls.append(call))
    assert problem.path.endswith("weights.bin")
    assert calls == [(0, 1, "base@abababab")]


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: b"",
        lambda manifest: b"[]",
        lambda manifest: manifest.replace(b'"size": 5000', b'"size": 5001'),
        lambda manifest: manifest.replace(b'"base": "a1"', b'"base": "x1"'),
        lambda manifest: manifest.replace(KEY.encode(), b"cd" * 32),
    ],
)
def test_a_damaged_manifest_is_named_and_healed(store: ArtifactStore, tmp_path: Path, edit: Any) -> None:
    ref = publish(store, tmp_path)
    store.objects.put(manifest_path(KEY), edit(store.objects.get(manifest_path(KEY))))
    with pytest.raises(IntegrityError, match=r"manifest.json is damaged: .*--refresh"):
        store.find(KEY)
    assert [problem.path for problem in store.verify_all()] == [manifest_path(KEY)]
    assert store.list() == []
    assert store.discard(KEY, "--refresh")
    assert publish(store, tmp_path) == ref


def test_what_is_told_is_verified_against_the_log(store: ArtifactStore, tmp_path: Path) -> None:
    publish(store, tmp_path)
    manifest = store.objects.get(manifest_path(KEY))
    assert manifest is not None
    store.objects.put(manifest_path(KEY), manifest.replace(b"pretrain", b"pretrbin"))
    (problem,) = store.verify_all()
    assert "differs" in problem.what


def test_a_manifest_that_names_files_elsewhere_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    publish(store, tmp_path)
    manifest = store.manifest(KEY)
    manifest["files"][0]["path"] = "../../../secret"
    manifest["digest"] = artifacts_module._digest_of(manifest["files"])
    store.objects.put(manifest_path(KEY), json.dumps(manifest).encode())
    with pytest.raises(IntegrityError, match="outside"):
        store.find(KEY)


def test_discard_of_nothing_does_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    assert not store.discard(KEY, "x")
    publish(store, tmp_path)
    assert store.discard(KEY, "x") and not store.discard(KEY, "x")


def test_a_reference_to_another_content_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    ref = publish(store, tmp_path)
    with pytest.raises(IntegrityError, match="made again with another content"):
        store.fetch(ref.model_copy(update={"digest": "0" * 64}))
    with pytest.raises(StorageError, match="Nothing is published"):
        store.fetch(ref.model_copy(update={"key": "cd" * 32}))


def test_losing_the_claim_while_uploading_publishes_nothing(tmp_path: Path) -> None:
    plain = ArtifactStore(FolderStore(tmp_path / "store"), tmp_path / "scratch")
    claim = acquire(plain.objects, KEY, dead_owner(), stale_seconds=60)
    assert isinstance(claim, Claim)
    output = write_files(tmp_path / "late", late=b"late")
    winner = publish(plain, tmp_path)
    with pytest.raises(ClaimLostError):
        plain.publish(claim, ArtifactKind.MODEL, "base", output, {})
    assert plain.find(KEY) == winner


def steps_of(root: Path, action: Any) -> int:
    count = 0

    def tick(*_: str) -> None:
        nonlocal count
        count += 1

    action(HookedStore(root, tick))
    return count


def crash_at(step: int) -> Any:
    left = step

    def tick(*_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    return tick


def test_a_kill_at_any_moment_of_publishing_is_recovered(tmp_path: Path) -> None:
    """At every change of the store: what a rerun finds is whole and has the same digest as an uninterrupted run's."""
    owner = dead_owner()

    def run(objects: FolderStore, folder: Path) -> ArtifactRef:
        store = ArtifactStore(objects, folder / "scratch")
        claim = acquire(objects, KEY, owner, stale_seconds=60, wait=False)
        if isinstance(claim, Published):
            found = store.find(KEY)
            assert found is not None
            return found
        output = write_files(folder / f"output-a{claim.attempt}", **FILES)
        return store.publish(claim, ArtifactKind.MODEL, "base", output, {})

    wanted: list[ArtifactRef] = []
    steps = steps_of(tmp_path / "whole" / "s", lambda objects: wanted.append(run(objects, tmp_path / "whole")))
    assert steps >= 6
    rolled_forward = 0
    for step in range(steps):
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            run(HookedStore(folder / "s", crash_at(step)), folder)
        store = ArtifactStore(FolderStore(folder / "s"), folder / "scratch")
        store.find(KEY)  # nothing half-written is an error: it is there, or it is not
        ref = run(FolderStore(folder / "s"), folder)
        assert ref.digest == wanted[0].digest and store.find(KEY) == ref and store.verify_all() == []
        rolled_forward += store.manifest(KEY)["base"] == "a1" and step > 0
    assert rolled_forward >= 2


def test_a_kill_at_any_moment_of_discarding_is_recovered(tmp_path: Path) -> None:
    def prepare(folder: Path) -> None:
        publish(ArtifactStore(FolderStore(folder / "s"), folder / "scratch"), folder)

    prepare(tmp_path / "whole")
    steps = steps_of(
        tmp_path / "whole" / "s", lambda objects: ArtifactStore(objects, tmp_path / "x").discard(KEY, "again")
    )
    assert steps == 3
    for step in range(steps):
        folder = tmp_path / str(step)
        prepare(folder)
        with pytest.raises(Crash):
            ArtifactStore(HookedStore(folder / "s", crash_at(step)), folder / "scratch").discard(KEY, "again")
        store = ArtifactStore(FolderStore(folder / "s"), folder / "scratch")
        if step == 0:
            assert store.find(KEY) is not None and store.discard(KEY, "again")
        assert store.find(KEY) is None
        assert publish(store, folder) == store.find(KEY)
        assert store.manifest(KEY)["base"] == "a2"


def test_pins_are_kept(store: ArtifactStore) -> None:
    store.pin(KEY, "a paper cites it")
    assert store.pins() == [KEY]
    store.unpin(KEY)
    assert store.pins() == []
