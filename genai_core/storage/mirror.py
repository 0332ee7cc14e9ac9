"""Copy a store to another place, for a backup or a move: every byte is compared with its manifest on the way.

A manifest travels behind its files, so what was cut short is not published there and goes on the next time. What is there
already is not copied again, and nothing that is there is ever overwritten. Who computes what (heartbeats) stays behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from genai_core.errors import ConfigError, IntegrityError
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.digest import digest_file
from genai_core.storage.layout import CLAIMS, PINS, RETIRED, RUNS, WORK, attempt_path, manifest_path
from genai_core.storage.objects import Entry, ObjectStore

Progress = Callable[[int, int, str], None]
"""Called with bytes that are done, bytes in all, and what is copied."""


@dataclass
class Mirrored:
    """What came of it."""

    copied: int = 0
    """Artifacts that were not there; with dry_run those that would be copied."""
    bytes: int = 0
    there: int = 0
    """Artifacts that were there already."""
    records: int = 0
    """Claims, runs, pins, retired manifests, and unfinished state where it was asked for: what was missing there."""
    problems: list[str] = field(default_factory=list)
    """What was not copied, and why."""


def mirror(
    source: ArtifactStore,
    target: ObjectStore,
    *,
    unfinished: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Mirrored:
    """Copy all that is published, and what must be kept with it, into another store; return what came of it.

    Args:
        source: the store to copy; nothing of it changes.
        target: where to; it may hold artifacts already.
        unfinished: also `work/`, from which stages that were cut resume. Nothing should run meanwhile.
        dry_run: only count.
        progress: told after every file.

    Raises:
        ConfigError: both are the same place, or one lies inside the other.
    """
    _refuse_one_place(source.objects, target)
    result = Mirrored()
    waiting: list[Mapping[str, Any]] = []
    others: set[str] = set()
    for key in source.published_keys():
        try:
            manifest = source.read(key)
        except IntegrityError as error:
            result.problems.append(str(error))
            manifest = None
        if manifest is None:
            continue
        known = target.get(manifest_path(key))
        if known is None:
            waiting.append(manifest)
        elif _digest_in(known) == manifest["digest"]:
            result.there += 1
        else:
            others.add(key)
            result.problems.append(
                f"{manifest['name']}@{manifest['version']} is there with other bytes: {target.uri}/{manifest_path(key)}. "
                "Nothing was overwritten."
            )
    total = sum(file["size"] for manifest in waiting for file in manifest["files"])
    if dry_run:
        result.copied, result.bytes = len(waiting), total
    else:
        faults = [_copy_artifact(source, target, one, result, total, progress) for one in waiting]
        result.problems += filter(None, faults)
        result.copied = faults.count("")
    for prefix in (RETIRED, CLAIMS, RUNS, PINS, *((WORK,) if unfinished else ())):
        result.records += _copy_records(source, target, prefix, others, dry_run)
    return result


def _refuse_one_place(source: ObjectStore, target: ObjectStore) -> None:
    one, other = (f"{objects.uri.rstrip('/')}/" for objects in (source, target))
    if getattr(source, "server", "") == getattr(target, "server", "") and (
        one.startswith(other) or other.startswith(one)
    ):
        raise ConfigError(
            f"{target.uri} and the store {source.uri} are one place, or one inside the other. Give another."
        )


def _digest_in(manifest: bytes) -> str:
    try:
        return str(json.loads(manifest)["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def _copy_artifact(
    source: ArtifactStore,
    target: ObjectStore,
    manifest: Mapping[str, Any],
    result: Mirrored,
    total: int,
    progress: Progress | None,
) -> str:
    """Copy one artifact's files, then its manifest; return why it was not, '' if it was."""
    prefix = attempt_path(manifest["key"], manifest["base"])
    label = f"{manifest['name']}@{manifest['version']}"
    there = {entry.path: entry.size for entry in target.list(f"{prefix}/")}
    for file in manifest["files"]:
        path = f"{prefix}/{file['path']}"
        if there.get(path) != file["size"]:  # a put is whole or not at all, and was verified when it was made
            with source.copied(path) as draft:
                found = digest_file(draft)
                if found != file["sha256"]:
                    return (
                        f"{label} is damaged: {file['path']} has sha256 {found[:12]} instead of {file['sha256'][:12]}."
                    )
                target.put_file(path, draft)
        result.bytes += file["size"]
        if progress is not None:
            progress(result.bytes, total, label)
    own = source.objects.get(manifest_path(manifest["key"]))
    if own is None or not (target.put_if_absent(manifest_path(manifest["key"]), own)):
        return f"{label} changed while it was copied. Run again."
    return ""


def _copy_records(
    source: ArtifactStore, target: ObjectStore, prefix: str, others: Collection[str], dry_run: bool
) -> int:
    """Copy the small objects below a prefix that are not there; return how many. Unfinished state moves on, the rest never does.

    `others` are keys of which the target has its own: what happened to them here did not happen there.
    """
    there = {entry.path: entry for entry in target.list(prefix)}
    number = 0
    for entry in source.objects.list(prefix):
        known = there.get(entry.path)
        key = entry.path[len(prefix) :].split("/")[0].split("-")[0]
        if key in others or "/heartbeat-" in entry.path or (known and (prefix != WORK or not _is_older(known, entry))):
            continue
        number += 1
        if not dry_run:
            with source.copied(entry.path) as draft:
                target.put_file(entry.path, draft)
    return number


def _is_older(known: Entry, entry: Entry) -> bool:
    return known.size != entry.size or known.modified < entry.modified
