"""Published directories: files first, then one manifest; what has no manifest does not exist.

    {"kind": "model", "name": "pydocs-base", "version": "3f9c2a71", "key": "3f9c2a71...", "digest": "9b1e...",
     "base": "a1", "files": [{"path": "model.safetensors", "size": 20971520, "sha256": "..."}, ...],
     "told": {"created_at": ..., "host": ..., "attempt": 1, "seconds": ..., "stage": "pretrain", "inputs": {...}}}

The digest covers paths, sizes and bytes. What is told (times, hosts, versions, config) stands beside it, never in it.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel

from genai_core.errors import IntegrityError, StorageError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.claims import Claim, ClaimLog, Event, manifest_attempt, new_record
from genai_core.storage.digest import digest_entries, digest_file
from genai_core.storage.digest_cache import DigestCache
from genai_core.storage.folder import FolderStore
from genai_core.storage.layout import ARTIFACTS, PINS, attempt_path, manifest_path, pin_path, retired_path
from genai_core.storage.objects import ObjectStore

VERSION_CHARS = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """What `verify_all` found wrong."""

    key: str
    label: str
    """name@version, '' if the manifest cannot be read."""
    path: str
    """Path in the store."""
    what: str

    def __str__(self) -> str:
        return f"{self.label or self.key[:12]}: {self.path}: {self.what}"


class ArtifactStore:
    """Publishes, finds and fetches artifacts in an object store."""

    def __init__(self, objects: ObjectStore, scratch: Path) -> None:
        self.objects = objects
        self.scratch = scratch
        self._verified = DigestCache(scratch)

    def publish(
        self, claim: Claim, kind: ArtifactKind, name: str, directory: Path, told: Mapping[str, Any]
    ) -> ArtifactRef:
        """Return the reference to the directory's files, now published under the claim's key.

        The files are given away: in a store on the same disk they are linked, not copied, so nothing may write to
        them afterwards. Raises ClaimLostError, and publishes nothing, if another attempt has taken over.
        """
        base = f"a{claim.attempt}"
        files = []
        for path in sorted(found for found in directory.rglob("*") if found.is_file()):
            claim.check()
            relative = path.relative_to(directory).as_posix()
            self._put(f"{attempt_path(claim.key, base)}/{relative}", path)
            files.append({"path": relative, "size": path.stat().st_size, "sha256": digest_file(path)})
        if not files:
            raise StorageError(f"The stage of {name} wrote no file into {directory}; there is nothing to publish.")
        manifest = {
            "kind": kind.value,
            "name": name,
            "version": claim.key[:VERSION_CHARS],
            "key": claim.key,
            "digest": _digest_of(files),
            "base": base,
            "files": files,
            "told": {
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": socket.gethostname(),
                **_plain(told),
                "attempt": claim.attempt,
            },
        }
        claim.commit(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())
        return self._ref(manifest)

    def find(self, key: str, verify: bool = True) -> ArtifactRef | None:
        """Return the reference to what is published for a key, None if nothing is.

        In a folder the bytes are verified (a file that has not changed since is not read again), on S3 the sizes;
        S3's bytes are verified by `fetch`. Raises IntegrityError naming the file and the remedy.
        """
        manifest = self.read(key)
        if manifest is None:
            return None
        if verify:
            self._refuse_damage(manifest, self._faults(manifest, self._verified.files))
        return self._ref(manifest)

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the manifest of what is published for a key, None if nothing is. Raises IntegrityError."""
        data = self.objects.get(manifest_path(key))
        if data is None:
            return None
        fault = ""
        try:
            manifest: dict[str, Any] = json.loads(data)
            names = [ArtifactKind(manifest["kind"]), manifest["name"], manifest["version"], manifest["told"]]
            attempt = manifest_attempt(data)
            if manifest["key"] != key or not attempt or not all(names):
                fault = "its fields contradict each other"
            elif _digest_of(manifest["files"]) != manifest["digest"]:
                fault = "its digest is not the one of its files"
            elif any(PurePosixPath(file["path"]).is_absolute() or ".." in file["path"] for file in manifest["files"]):
                fault = "it names files outside its directory"
        except (ValueError, KeyError, TypeError) as error:
            fault = f"it cannot be read ({type(error).__name__})"
        if fault:
            raise IntegrityError(
                f"{self.objects.uri}/{manifest_path(key)} is damaged: {fault}. Compute it again with "
                f"`--refresh STAGE` (the stage whose key is {key[:VERSION_CHARS]})."
            )
        if self.objects.get(retired_path(key, attempt)) is not None:
            return None  # written by a process that slept through its own retirement
        return manifest

    def manifest(self, key: str) -> dict[str, Any]:
        """Return the manifest of what is published for a key. Raises StorageError if nothing is."""
        manifest = self.read(key)
        if manifest is None:
            raise StorageError(f"Nothing is published for key {key} in {self.objects.uri}. Run its stage again.")
        return manifest

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local directory with the verified files of an artifact; read only. Raises IntegrityError."""
        manifest = self.manifest(ref.key)
        if manifest["digest"] != ref.digest:
            raise IntegrityError(
                f"{ref.label()} was made again with another content: {ref.digest[:12]} is wanted, "
                f"{manifest['digest'][:12]} is published. Run the recipe again, so that all that follows sees the new one."
            )
        own = self.objects.local_path(attempt_path(ref.key, manifest["base"]))
        if own is not None:
            self._refuse_damage(manifest, self._faults(manifest, self._verified.files))
            return own
        return self._download(manifest)

    def list(self) -> Sequence[ArtifactRef]:
        """Return the references to all published artifacts, unverified, in key order; unreadable ones are left out."""
        refs = []
        for key in self.published_keys():
            try:
                manifest = self.read(key)
            except IntegrityError:  # `verify_all` is who tells
                continue
            if manifest is not None:
                refs.append(self._ref(manifest))
        return refs

    def published_keys(self) -> Sequence[str]:
        """Return the keys that have a manifest, in order."""
        paths = (PurePosixPath(entry.path) for entry in self.objects.list(ARTIFACTS))
        return [path.parts[1] for path in paths if len(path.parts) == 3 and path.name == "manifest.json"]

    def discard(self, key: str, reason: str) -> bool:
        """Retire what is published for a key, so that it is computed again; return whether anything was.

        Its files stay until they are collected. A process that still holds a reference can no longer fetch them.
        """
        log = ClaimLog(self.objects, key)
        last = log.refresh()
        manifest = self.objects.get(manifest_path(key))
        if last is not None and last.event in {Event.COMMITTING, Event.COMMITTED}:
            attempt = last.attempt
            manifest = log.manifest(attempt) or manifest
        elif manifest is not None:
            attempt = manifest_attempt(manifest)
        else:
            return False
        fresh = self.objects.put_if_absent(retired_path(key, attempt), manifest or b"{}")
        # from here on the attempt counts as retired, whatever is interrupted; the record is for who reads the log
        last = log.refresh()
        while last is None or (last.attempt == attempt and last.event in {Event.COMMITTING, Event.COMMITTED}):
            log.append(new_record(Event.DISCARDED, attempt, reason=reason))
            last = log.refresh()
        there = self.objects.get(manifest_path(key))
        if there is not None and manifest_attempt(there) <= attempt:
            self.objects.delete(manifest_path(key))
        return fresh

    def verify_all(self, progress: Callable[[int, int, str], None] | None = None) -> Sequence[Problem]:
        """Return all that is wrong with what is published, after reading every byte of it.

        `progress(done, total, label)` is called before each artifact.
        """
        keys = self.published_keys()
        problems = []
        for done, key in enumerate(keys):
            try:
                manifest = self.read(key)
            except IntegrityError as error:
                problems.append(Problem(key, "", manifest_path(key), str(error)))
                continue
            if manifest is None:
                continue
            label = self._ref(manifest).label()
            if progress is not None:
                progress(done, len(keys), label)
            base = attempt_path(key, manifest["base"])
            problems += [Problem(key, label, f"{base}/{path}", what) for path, what in self._faults(manifest, None)]
            log = ClaimLog(self.objects, key)
            log.refresh()
            decided = log.manifest(manifest_attempt(json.dumps(manifest).encode()))
            if decided is not None and json.loads(decided) != manifest:
                problems.append(Problem(key, label, manifest_path(key), "differs from what its attempt published"))
        return problems

    def pin(self, key: str, reason: str = "") -> None:
        """Keep an artifact and its ancestors, whatever else is collected."""
        self.objects.put(pin_path(key), json.dumps({"reason": reason}).encode())

    def unpin(self, key: str) -> None:
        """Undo `pin`."""
        self.objects.delete(pin_path(key))

    def pins(self) -> Sequence[str]:
        """Return the pinned keys, in order."""
        return [entry.path[len(PINS) :] for entry in self.objects.list(PINS)]

    def _put(self, path: str, source: Path) -> None:
        if isinstance(self.objects, FolderStore):
            self.objects.link_file(path, source)
        else:
            self.objects.put_file(path, source)

    def _ref(self, manifest: Mapping[str, Any]) -> ArtifactRef:
        return ArtifactRef(
            kind=ArtifactKind(manifest["kind"]),
            name=manifest["name"],
            version=manifest["version"],
            digest=manifest["digest"],
            uri=f"{self.objects.uri}/artifacts/{manifest['key']}",
            key=manifest["key"],
        )

    def _faults(
        self, manifest: Mapping[str, Any], digests: Callable[[Iterable[Path]], Sequence[str]] | None
    ) -> Iterator[tuple[str, str]]:
        """Yield (path, what is wrong) of every damaged file; `digests` None reads every byte, wherever it is."""
        prefix = attempt_path(manifest["key"], manifest["base"])
        sizes = {entry.path: entry.size for entry in self.objects.list(f"{prefix}/")}
        whole = []
        for file in manifest["files"]:
            size = sizes.get(f"{prefix}/{file['path']}")
            if size is None:
                yield file["path"], "is missing"
            elif size != file["size"]:
                yield file["path"], f"has {size:,} bytes instead of {file['size']:,}"
            else:
                whole.append(file)
        own = self.objects.local_path(prefix)
        if own is not None:
            read = digests or (lambda paths: [digest_file(path) for path in paths])
            found = read([own / file["path"] for file in whole])
        elif digests is None:
            found = [self._digest_object(f"{prefix}/{file['path']}") for file in whole]
        else:
            return
        for file, sha256 in zip(whole, found, strict=True):
            if sha256 != file["sha256"]:
                yield file["path"], f"has other bytes: sha256 {sha256[:12]} instead of {file['sha256'][:12]}"

    @contextmanager
    def copied(self, path: str) -> Iterator[Path]:
        """Give a local copy of one of the store's objects, for as long as the block takes."""
        draft = self.scratch / f"copy-{uuid.uuid4().hex}"
        try:
            self.objects.get_file(path, draft)
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _digest_object(self, path: str) -> str:
        with self.copied(path) as draft:
            return digest_file(draft)

    def _refuse_damage(self, manifest: Mapping[str, Any], faults: Iterable[tuple[str, str]]) -> None:
        found = list(faults)
        if found:
            path, what = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            stage = manifest["told"].get("title") or manifest["told"].get("stage") or "STAGE"
            raise IntegrityError(
                f"{manifest['name']}@{manifest['version']} is damaged: {path} {what}{more}, in {self.objects.uri}/"
                f"{attempt_path(manifest['key'], manifest['base'])}. Compute it again with `--refresh {stage}`."
            )

    def _download(self, manifest: Mapping[str, Any]) -> Path:
        target: Path = self.scratch / "artifacts" / manifest["digest"]
        if target.is_dir():
            if not list(self._local_faults(manifest, target)):
                return target
            shutil.rmtree(target)
        draft = target.with_name(f".{uuid.uuid4().hex}")
        try:
            for file in manifest["files"]:
                path = f"{attempt_path(manifest['key'], manifest['base'])}/{file['path']}"
                self.objects.get_file(path, draft / file["path"])
            self._refuse_damage(manifest, self._local_faults(manifest, draft))
            try:
                draft.rename(target)
            except OSError:
                if not target.is_dir():  # another process was faster
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def _local_faults(self, manifest: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
        for file in manifest["files"]:
            path = folder / file["path"]
            if not path.is_file():
                yield file["path"], "is missing"
            elif path.stat().st_size != file["size"] or self._verified.file(path) != file["sha256"]:
                yield file["path"], "has other bytes than were published"


def _digest_of(files: Iterable[Mapping[str, Any]]) -> str:
    return digest_entries((file["path"], file["size"], file["sha256"]) for file in files)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what is not finite, or is not JSON, becomes text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
