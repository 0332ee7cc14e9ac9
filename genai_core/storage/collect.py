"""Garbage collection: what no root reaches goes; a root keeps all its ancestors.

Roots are the keys given (registered versions), the last flow runs, pins, live claims with their inputs, and whatever
is younger than the grace time: a run that has just published a stage may not have claimed the next one yet.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from genai_core.errors import IntegrityError
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import ClaimLog, Event, heartbeat_time
from genai_core.storage.digest import canonical_json
from genai_core.storage.folder import FolderStore
from genai_core.storage.layout import ARTIFACTS, CLAIMS, RUNS, WORK
from genai_core.storage.objects import Entry, ObjectStore
from genai_core.storage.owner import is_gone

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that was deleted, or would be."""

    path: str
    size: int
    reason: str


@dataclass(frozen=True)
class Collected:
    """What a collection did, or would do."""

    removed: Sequence[Removed] = field(default_factory=tuple)
    kept: Sequence[str] = field(default_factory=tuple)
    """Keys of the artifacts that stay."""

    @property
    def size(self) -> int:
        """Return the bytes of all that goes."""
        return sum(item.size for item in self.removed)


def record_run(objects: ObjectStore, run_id: str, keys: Iterable[str]) -> str:
    """Return the path of a flow run's record, written anew with its keys.

    Call it as soon as the first keys are known and again when there are more: the record keeps its first time.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", run_id):
        raise ValueError(f"run id {run_id!r} is not a plain name")
    suffix = f"-{run_id}.json"
    known = [entry.path for entry in objects.list(RUNS) if entry.path.endswith(suffix)]
    path = known[0] if known else f"{RUNS}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{suffix}"
    objects.put(path, canonical_json({"run": run_id, "keys": sorted(set(keys))}))
    return path


def collect(
    store: ArtifactStore,
    roots: Iterable[str],
    *,
    keep_runs: int = 10,
    grace_seconds: float = HOUR,
    workspace_seconds: float = 7 * DAY,
    dry_run: bool = True,
) -> Collected:
    """Return what was deleted, with its bytes and the reason; with `dry_run` what would be.

    Args:
        store: the artifact store.
        roots: keys that must stay, such as those of registered model versions.
        keep_runs: so many of the last flow runs keep their artifacts.
        grace_seconds: what was written later than this ago stays.
        workspace_seconds: an unfinished state that nobody holds or wrote to for so long goes.
        dry_run: delete nothing.
    """
    objects, now = store.objects, time.time()
    live = dict(live_claims(objects, now, workspace_seconds))
    manifests = dict(_manifests(store))
    files = _by_key(objects, ARTIFACTS)
    young = {key for key, entries in files.items() if now - max(entry.modified for entry in entries) < grace_seconds}
    wanted = {*roots, *store.pins(), *_keys_of_runs(objects, keep_runs), *young}
    wanted |= {key for key, inputs in live.items() for key in (key, *inputs)}
    kept = _with_ancestors(wanted, manifests)
    removed = []
    for key, entries in files.items():
        if key not in kept:
            removed.append(_sum(f"{ARTIFACTS}{key}", entries, "no root reaches it"))
            if not dry_run:
                store.discard(key, reason="collected")
                _delete(objects, entries)
        elif (manifest := manifests.get(key)) is not None and key not in live and key not in young:
            used = f"{ARTIFACTS}{key}/{manifest['base']}/"
            orphans = [entry for entry in entries if entry.path.count("/") > 2 and not entry.path.startswith(used)]
            if orphans:
                removed.append(_sum(f"{ARTIFACTS}{key}", orphans, "files of an attempt that is not published"))
                if not dry_run:
                    _delete(objects, orphans)
    for key, entries in _by_key(objects, WORK).items():
        if key not in live and now - max(entry.modified for entry in entries) > workspace_seconds:
            removed.append(_sum(f"{WORK}{key}", entries, "unfinished, and untouched for long"))
            if not dry_run:
                _delete(objects, entries)
                _remove_folder(objects, f"{WORK}{key}")
    if not dry_run:
        if isinstance(objects, FolderStore):
            objects.clear_drafts(DAY, now)
        _forget_runs(objects, keep_runs)
    return Collected(tuple(removed), tuple(sorted(key for key in manifests if key in kept)))


def live_claims(objects: ObjectStore, now: float, forgotten_seconds: float) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (key, keys of its inputs) of every claim that may be alive.

    What is not known to be dead counts as alive: its process is gone, or nothing of it moved for `forgotten_seconds`.
    """
    for key in sorted({entry.path.split("/")[1] for entry in objects.list(CLAIMS)}):
        log = ClaimLog(objects, key)
        try:
            last = log.refresh()
        except IntegrityError:
            yield key, ()  # unreadable: nothing of it may be deleted
            continue
        if last is None or last.event not in {Event.CLAIMED, Event.COMMITTING}:
            continue
        owner = log.holder(last.attempt)
        moved = max(last.at, heartbeat_time(objects, key, last.attempt))
        if (owner is not None and is_gone(owner)) or now - moved > forgotten_seconds:
            continue
        claimed = [record for record in log.records if record.attempt == last.attempt and record.event is Event.CLAIMED]
        yield key, claimed[-1].inputs if claimed else ()


def _manifests(store: ArtifactStore) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for key in store.published_keys():
        try:
            yield key, store.read(key)
        except IntegrityError:
            yield key, None  # damaged: collected like any other, but it cannot name its ancestors


def _with_ancestors(keys: Iterable[str], manifests: Mapping[str, Mapping[str, Any] | None]) -> set[str]:
    reached: set[str] = set()
    waiting = [key for key in keys if key]
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        reached.add(key)
        told = (manifests.get(key) or {}).get("told", {})
        waiting += [ref["key"] for ref in told.get("inputs", {}).values() if ref.get("key")]
    return reached


def _keys_of_runs(objects: ObjectStore, keep_runs: int) -> Iterator[str]:
    paths = [entry.path for entry in objects.list(RUNS)]
    for path in paths[max(0, len(paths) - keep_runs) :]:
        data = objects.get(path)
        if data is not None:
            yield from json.loads(data)["keys"]


def _forget_runs(objects: ObjectStore, keep_runs: int) -> None:
    paths = [entry.path for entry in objects.list(RUNS)]
    for path in paths[: max(0, len(paths) - keep_runs)]:
        objects.delete(path)


def _by_key(objects: ObjectStore, prefix: str) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in objects.list(prefix):
        found[entry.path.split("/")[1]].append(entry)
    return found


def _sum(path: str, entries: Iterable[Entry], reason: str) -> Removed:
    return Removed(path, sum(entry.size for entry in entries), reason)


def _delete(objects: ObjectStore, entries: Iterable[Entry]) -> None:
    for entry in entries:
        objects.delete(entry.path)


def _remove_folder(objects: ObjectStore, path: str) -> None:
    folder = objects.local_path(path)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)  # empty folders are no objects
