"""From what a person types to a model's folder: a registered name, an artifact, or a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genai_core.config.settings import Settings
from genai_core.errors import ModelError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.open import open_store

if TYPE_CHECKING:
    from genai_core.tracking.registry import ModelVersion


def open_artifacts(settings: Settings, probe: bool = False) -> ArtifactStore:
    """Return the artifact store of the settings."""
    return ArtifactStore(open_store(settings.storage_uri, settings, probe=probe), settings.scratch)


def split_model(model: str) -> tuple[str, str]:
    """Return name and alias-or-version of NAME, NAME@alias or NAME/3; the alias defaults to champion."""
    if "/" in model:
        name, version = model.rsplit("/", 1)
        return name, version
    name, _, alias = model.partition("@")
    return name, alias or "champion"


def find_artifact(model: str, store: ArtifactStore) -> ArtifactRef | None:
    """Return the model artifact called NAME@version in the store, or None."""
    for ref in store.list():
        if ref.kind in (ArtifactKind.MODEL, ArtifactKind.ADAPTER) and ref.label() == model:
            return ref
    return None


def locate_version(model: str, settings: Settings) -> tuple[ArtifactRef, ModelVersion | None]:
    """Return the artifact of a registered model or of NAME@version, and the version if a registered one was named.

    Raises ModelError or ConfigError naming what there is.
    """
    store = open_artifacts(settings)
    if (found := find_artifact(model, store)) is not None:
        return found, None
    from genai_core.tracking.registry import Registry

    registry = Registry(settings.tracking_uri)
    name, which = split_model(model)
    version = registry.describe_model(name, which)
    ref = store.find(version.artifact.key) if version.artifact else None
    if ref is None:
        raise ModelError(
            f"{name} version {version.version} was made from an artifact that is not in {settings.storage_uri}. "
            "Give --storage with the store that holds it."
        )
    return ref, version


def locate_ref(model: str, settings: Settings) -> ArtifactRef:
    """Return the artifact of a registered model or of NAME@version. Raises ModelError naming what there is."""
    return locate_version(model, settings)[0]


def locate_folder(model: str, settings: Settings) -> Path:
    """Return a verified local folder of a model: of a path, an artifact or a registered model."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{model} is a folder without config.json: not a model written by save_pretrained.")
        return path
    return open_artifacts(settings).fetch(locate_ref(model, settings))
