"""One migrated SQLite MLflow for all tests here: the migration takes two seconds, so every test gets a copy of the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.runs import Tracker
from tests.tracking.losing import Losable


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    assert Tracker(f"sqlite:///{path}", "first").experiment_id
    return path


@pytest.fixture
def uri(migrated: Path, tmp_path: Path) -> str:
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> Tracker:
    return Tracker(uri, "genai", tmp_path / "mlartifacts")


@pytest.fixture
def ref() -> Callable[..., ArtifactRef]:
    def make(name: str = "corpus", key: str = "", kind: ArtifactKind = ArtifactKind.DATASET) -> ArtifactRef:
        key = key or (name.encode().hex() * 64)[:64]
        return ArtifactRef(kind=kind, name=name, version=key[:8], digest=key[::-1], uri=f"/store/{key}", key=key)

    return make


@pytest.fixture
def losable(tracker: Tracker) -> Losable:
    return Losable(tracker.uri, tracker.experiment)
