"""What `prefect deploy` asks for while it reads prefect.yaml."""

from __future__ import annotations

from typing import Any

from genai_core.config.load import load_recipe


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe with every default filled in, so that the run form shows what will run."""
    return {"recipe": load_recipe(name).model_dump(mode="json")}
