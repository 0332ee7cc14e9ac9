"""How a diffusion model writes, beside its weights: `diffusion.json` in its folder.

    {"answer_length": 48, "block_length": 0, "mask_token": "", "reads": "own", "row_tokens": 256}

The weights are an ordinary transformers model, which plain `transformers` loads; that it fills in masks instead of going from
left to right is told here and nowhere else. A folder without the file is a causal model.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from genai_core.config.generation import DiffusionWriter
from genai_core.errors import ModelError

FILE = "diffusion.json"


def write_writer(folder: Path, writer: DiffusionWriter) -> None:
    """Say how the model of a folder writes."""
    (folder / FILE).write_text(writer.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_writer(folder: Path) -> DiffusionWriter | None:
    """Return how the model of a folder writes; None: from left to right.

    Raises:
        ModelError: the file is not what `write_writer` writes.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return DiffusionWriter.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ModelError(
            f"{file} does not say how the model writes: {error}. Publish the model again, or delete the file to use it as a "
            "causal one."
        ) from error
