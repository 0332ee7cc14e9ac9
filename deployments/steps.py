"""What Prefect calls while it reads prefect.yaml, and before it runs a flow on a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genai_core.config.load import load_recipe
from genai_core.errors import ConfigError
from genai_core.launch.quiet import silence


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe with every default filled in, so that the run form shows what will run."""
    return {"recipe": load_recipe(name).model_dump(mode="json")}


def enter_project(directory: str = "", settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Go where a recipe's relative paths are meant, and return that folder. A worker starts its runs in an empty one.

    Args:
        directory: the folder that was deployed from; GENAI_PROJECT of the worker's machine stands above it.
        settings: `GENAI_*` variables of who deployed; what the worker's machine has set itself stands above them.

    Raises:
        ConfigError: there is no such folder here.
    """
    silence()
    for name, value in (settings or {}).items():
        os.environ.setdefault(name, value)
    place = Path(os.environ.get("GENAI_PROJECT") or directory)
    if not place.is_absolute() or not place.is_dir():
        raise ConfigError(
            f"This worker's machine has no folder {str(place)!r}, in which the flow should run. Set GENAI_PROJECT to a folder "
            "of this machine and start the worker again."
        )
    os.chdir(place)
    return {"directory": str(place)}
