"""Checkpoints that are whole or do not exist, and are checked before they are believed.

    checkpoints/step-00000025/
        model.safetensors        what is trained
        optimizer.safetensors    momenta, moments and step counts
        rng.safetensors          torch's generator
        worker-00000.safetensors ...   moments of each worker of local SGD, and outer.safetensors, if it is that
        state.json               step, tokens seen, skipped steps, roll-backs, spike detector
        manifest.json            size and sha256 of each

Written under another name, flushed to the disk, renamed. The newest whole one is taken; one that is not is named,
with the file and what is wrong with it, and the one before it is used. safetensors and JSON only: nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genai_core.errors import DiskFullError, IntegrityError, is_disk_full
from genai_core.storage.digest import digest_file

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state.json"
KEPT = 2


class Keeper(Protocol):
    """What of a Workspace is needed here."""

    path: Path

    def save(self, relative: str) -> None:
        """Make a file or directory durable."""
        ...

    def forget(self, relative: str) -> None:
        """Delete a file or directory."""
        ...


class Events(Protocol):
    """What of a Journal is needed here."""

    def event(self, message: str, **data: Any) -> None:
        """Record something worth telling."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read back, every byte verified."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """By file: 'model', 'optimizer', 'rng'."""

    state: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one run in its workspace.

    Those at multiples of `every` are what a roll-back returns to; one made in between, because a person stopped the
    run, is only for resuming. So a run that was stopped rolls back to where an unbroken one would.
    """

    def __init__(self, keeper: Keeper, events: Events, every: int) -> None:
        self._keeper = keeper
        self._events = events
        self._every = every
        self._root = keeper.path / FOLDER

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        others: Iterable[Mapping[str, Mapping[str, Tensor]]] = (),
    ) -> None:
        """Write a checkpoint, then delete those that are no longer needed.

        Args:
            step: of the run.
            tensors: by file and name.
            state: JSON.
            others: more files, those of one other rank after another; each is written before the next is asked for.

        Raises:
            DiskFullError: no space; what there was is untouched.
        """
        name = f"step-{step:08d}"
        draft = self._root / f".{name}.part"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            for parts in chain((tensors,), others):
                for part, content in parts.items():
                    save_file(dict(content), draft / f"{part}.safetensors")
            _write_json(draft / STATE, {**state, "step": step})
            files = sorted(path.name for path in draft.iterdir())
            entries = {file: [(draft / file).stat().st_size, digest_file(draft / file)] for file in files}
            _write_json(draft / MANIFEST, {"files": entries})
            for file in [*files, MANIFEST]:
                _flush(draft / file)
            _flush(draft)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            if is_disk_full(error):
                raise DiskFullError(
                    f"No space for a checkpoint in {self._root}. Free some and run again to resume."
                ) from error
            raise
        if (self._root / name).exists():
            self._keeper.forget(f"{FOLDER}/{name}")
        draft.rename(self._root / name)
        _flush(self._root)
        self._keeper.save(f"{FOLDER}/{name}")
        self._prune()

    def newest(self, *, for_rollback: bool = False) -> Checkpoint | None:
        """Return the newest whole checkpoint, or None. Each refused one is told and deleted.

        Args:
            for_rollback: only those at multiples of `every`.
        """
        for step in reversed(self._steps()):
            if for_rollback and step % self._every:
                continue
            name = f"step-{step:08d}"
            try:
                return _read(self._root / name, step)
            except IntegrityError as error:
                self._events.event(f"checkpoint refused: {error}", checkpoint=name)
                self._keeper.forget(f"{FOLDER}/{name}")
        return None

    def _steps(self) -> list[int]:
        names = (path.name for path in self._root.glob("step-*") if path.is_dir())
        return sorted(int(name.removeprefix("step-")) for name in names)

    def _prune(self) -> None:
        steps = self._steps()
        kept = set(steps[-KEPT:]) | set([step for step in steps if step % self._every == 0][-KEPT:])
        for step in steps:
            if step not in kept:
                self._keeper.forget(f"{FOLDER}/step-{step:08d}")


def _read(folder: Path, step: int) -> Checkpoint:
    """Return a checkpoint. Raises IntegrityError that names the file and what is wrong with it."""
    manifest = _read_json(folder / MANIFEST)
    try:
        entries = {str(file): (int(size), str(sha256)) for file, (size, sha256) in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{folder.name}/{MANIFEST} is not a manifest") from error
    for file, (size, sha256) in sorted(entries.items()):
        path = folder / file
        if not path.is_file():
            raise IntegrityError(f"{folder.name}/{file} is missing")
        if path.stat().st_size != size:
            raise IntegrityError(f"{folder.name}/{file} is truncated: {path.stat().st_size:,} of {size:,} bytes")
        if digest_file(path) != sha256:
            raise IntegrityError(f"{folder.name}/{file} has changed: its sha256 is not the one that was written")
    state = _read_json(folder / STATE)
    if state.get("step") != step:
        raise IntegrityError(f"{folder.name}/{STATE} is of step {state.get('step')}")
    tensors = {
        file.removesuffix(".safetensors"): load_file(folder / file) for file in entries if file.endswith(".safetensors")
    }
    return Checkpoint(step, tensors, state)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IntegrityError(f"{path.parent.name}/{path.name} is missing") from error
    except ValueError as error:
        raise IntegrityError(f"{path.parent.name}/{path.name} is not whole JSON") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"{path.parent.name}/{path.name} is not a JSON object")
    return content


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True) + "\n", encoding="utf-8")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
