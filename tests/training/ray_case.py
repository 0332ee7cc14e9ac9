"""As a script: train the tiny model of worker_case on Ray Train groups, one run after another, in one local Ray.

python ray_case.py CORPUS RUNS.json     RUNS.json: [{"folder", "world_size", "training": {...}, "compute": {...}}]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from worker_case import arguments

from genai_core.launch.workers import RayWorkers
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal
from genai_core.training.worker import train_worker


def main(corpus: Path, runs: list[dict]) -> None:
    """Run all, in order."""
    workers = RayWorkers()
    for run in runs:
        work = Path(run["folder"])
        workspace = Workspace(FolderStore(work / "store"), "ab" * 32, work / "scratch")
        workers.serve(workspace, Journal(work / "driver.jsonl"), lambda: None, run_name=work.name, max_failures=0)
        given = arguments(corpus, work, compute=run["compute"], **run["training"])
        workers.train(train_worker, given, world_size=run["world_size"], threads=1)
    import ray

    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
