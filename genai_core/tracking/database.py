"""The SQLite file of a new installation: made once, by one process, and in its place only when it is whole.

Opening an empty database, MLflow runs its forty migrations. Two processes that do so at once (two runs, or one run's
flow and job host), or one that is killed at it, leave tables of half a migration behind, and MLflow opens that file
never again ("table _alembic_tmp_latest_metrics already exists").
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from genai_core.tracking.quiet import open_mlflow


def make_database(path: Path, artifact_root: str) -> None:
    """Make MLflow's database at a path unless there is one; others that want it meanwhile wait.

    Args:
        path: the SQLite file; its folder is made.
        artifact_root: where the default experiment keeps its files.
    """
    if is_made(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # the kernel gives it up when we close it, or die
        if not is_made(path):
            _make(path, artifact_root)
    finally:
        os.close(folder)


def _make(path: Path, artifact_root: str) -> None:
    open_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{draft}", artifact_root).engine.dispose()
    draft.replace(path)


def is_made(path: Path) -> bool:
    """Return whether there is a database: an empty file is none."""
    return path.exists() and path.stat().st_size > 0
