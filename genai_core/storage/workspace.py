"""The unfinished state of a stage: a local directory, mirrored to the object store where that is not a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genai_core.storage.objects import ObjectStore


class Workspace:
    """`work/<key>/` of the store. With a folder store the directory is the store's own; else it is a local mirror."""

    def __init__(self, objects: ObjectStore, key: str, scratch: Path) -> None:
        self._objects = objects
        self._prefix = f"work/{key}"
        own = objects.local_path(self._prefix)
        self._mirrored = own is None
        self.path: Path = own if own is not None else scratch / "work" / key
        self.path.mkdir(parents=True, exist_ok=True)

    def save(self, relative: str) -> None:
        """Make a file or directory below the workspace durable. Its manifest or last file must already be written."""
        if not self._mirrored:
            return
        target = self.path / relative
        files = [target] if target.is_file() else sorted(path for path in target.rglob("*") if path.is_file())
        # a manifest is what makes a directory exist, so it travels last
        for path in sorted(files, key=lambda file: (file.name == "manifest.json", str(file))):
            self._objects.put_file(f"{self._prefix}/{path.relative_to(self.path).as_posix()}", path)

    def restore(self) -> None:
        """Bring back what an earlier attempt made durable, where it is not here already."""
        if not self._mirrored:
            return
        for entry in self._objects.list(f"{self._prefix}/"):
            local = self.path / entry.path[len(self._prefix) + 1 :]
            if not local.exists() or local.stat().st_size != entry.size:
                local.parent.mkdir(parents=True, exist_ok=True)
                self._objects.get_file(entry.path, local)

    def forget(self, relative: str) -> None:
        """Delete a file or directory here and in the store."""
        target = self.path / relative
        if self._mirrored:
            for entry in self._objects.list(f"{self._prefix}/{relative}"):
                self._objects.delete(entry.path)
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the whole workspace; called after its stage has been published and its journal shipped."""
        if self._mirrored:
            for entry in self._objects.list(f"{self._prefix}/"):
                self._objects.delete(entry.path)
        shutil.rmtree(self.path, ignore_errors=True)
