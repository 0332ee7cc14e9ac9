"""Small real stores and directories for the tests of storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from genai_core.storage.folder import FolderStore
from genai_core.storage.owner import Owner, this_process

KEY = "ab" * 32


class Crash(BaseException):
    """What a SIGKILL looks like from inside: nothing catches it."""


class HookedStore(FolderStore):
    """A folder store that calls `before(operation, path)` ahead of every change."""

    def __init__(self, root: Path, before: Callable[[str, str], None]) -> None:
        super().__init__(root)
        self._before = before

    def put(self, path: str, data: bytes) -> None:
        self._before("put", path)
        super().put(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._before("put_if_absent", path)
        return super().put_if_absent(path, data)

    def delete(self, path: str) -> None:
        self._before("delete", path)
        super().delete(path)

    def put_file(self, path: str, source: Path) -> None:
        self._before("put_file", path)
        super().put_file(path, source)

    def link_file(self, path: str, source: Path) -> None:
        self._before("put_file", path)
        super().link_file(path, source)


def dead_owner() -> Owner:
    """Return an owner on this machine whose process has ended."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return this_process("dead").model_copy(update={"pid": child.pid, "process_start_time": 1})


def write_files(folder: Path, **files: bytes) -> Path:
    """Write files; a '__' in a name is a slash, and an extension is '.bin'."""
    for name, data in files.items():
        path = folder / f"{name.replace('__', '/')}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
