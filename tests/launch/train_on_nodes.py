"""Trains on the cluster that this is told of. As a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from genai_core.launch import workers
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal
from genai_core.training.worker import train_worker


def main(address: str, arguments: str, most: int, least: int) -> None:
    """Run train_worker with the arguments of a file on a Ray Train group of the cluster."""
    given = json.loads(Path(arguments).read_text(encoding="utf-8"))
    workers.RESIZE_SECONDS = 5.0
    folder = Path(given["workspace"]).parent
    workspace = Workspace(FolderStore(folder / "store"), "ab" * 32, folder / "scratch")
    journal = Journal(folder / "driver.jsonl")
    group = workers.RayWorkers(address).serve(workspace, journal, lambda: None, run_name="elastic", max_failures=3)
    try:
        group.train(train_worker, given, world_size=most, threads=1, min_workers=least)
    finally:
        group.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
