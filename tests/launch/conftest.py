"""One local Ray for all tests of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.launch.cluster import disconnect_ray
from genai_core.launch.workers import RayWorkers
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayWorkers]:
    """Workers on a Ray of their own that replace one loss; they can import the test files beside this one."""
    folder = tmp_path_factory.mktemp("workers")
    workspace = Workspace(FolderStore(folder / "store"), "cd" * 32, folder / "scratch")
    importable = pytest.MonkeyPatch()
    importable.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    ray_workers = RayWorkers()
    journal = Journal(workspace.path / "journal.jsonl")
    try:
        yield ray_workers.serve(workspace, journal, lambda: None, run_name="tests", max_failures=1)
    finally:
        journal.close()
        ray_workers.close()
        disconnect_ray()
        importable.undo()
