"""An eraser artifact: what loads with the model it was fitted on, and says which that is.

erasers.safetensors   <point>/left (d, r), <point>/right (r, d), <point>/bias (d,): float64
erasers.json          what was erased and how; of each point its rank, canonical correlations, n, residual, relative change

    model = load_scrubbed(model_folder, eraser_folder)        any transformers decoder or encoder, erased from here on
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from genai_core.errors import DataError, ModelError
from genai_core.models.families import load_any
from genai_core.representations.erasers import Eraser
from genai_core.representations.scrubbing import attach
from genai_core.storage.digest import digest_entries, digest_file

WEIGHTS, RECORD = "erasers.safetensors", "erasers.json"
PARTS = ("left", "right", "bias")


@dataclass(frozen=True)
class ErasedPoint:
    """An eraser, and how it was fitted."""

    eraser: Eraser
    n: int
    """Observations it was fitted on."""

    residual: float
    """Largest correlation between a feature and a label that it leaves there; 0 up to rounding."""

    change: float
    """E|r(X) - X|^2 / trace Cov(X), the share of the variance that it takes away."""


def digest_weights(folder: Path) -> str:
    """Return the digest of a model folder's weights: the same weights elsewhere are the same model.

    Raises:
        ModelError: there are no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no *.safetensors. Save the model with save_pretrained.")
    return digest_entries((file.name, file.stat().st_size, digest_file(file)) for file in files)


def write_erasers(folder: Path, points: Mapping[str, ErasedPoint], about: Mapping[str, Any]) -> None:
    """Write erasers; the same erasers give the same bytes.

    Args:
        folder: where to; made if missing.
        points: by module name, in the order of a pass.
        about: what was erased from which model; "model_weights", its digest, is what `load_scrubbed` compares.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{part}": tensor.contiguous()
        for name, point in points.items()
        for part in PARTS
        if (tensor := getattr(point.eraser, part)) is not None
    }
    save_file(tensors, str(folder / WEIGHTS))
    record = {
        **about,
        "points": [
            {
                "point": name,
                "rank": point.eraser.rank,
                "correlations": [round(value, 9) for value in point.eraser.correlations.tolist()],
                "n": point.n,
                "residual": float(f"{point.residual:.3g}"),
                "change": round(point.change, 9),
            }
            for name, point in points.items()
        ],
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_erasers(folder: Path) -> tuple[dict[str, Eraser], dict[str, Any]]:
    """Return the erasers of a folder by module name, in the order of a pass, and its record.

    Raises:
        DataError: it holds none.
    """
    if not (folder / RECORD).is_file() or not (folder / WEIGHTS).is_file():
        raise DataError(
            f"No erasers in {folder}: {RECORD} or {WEIGHTS} is missing. Name the folder of an eraser artifact."
        )
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    tensors = load_file(str(folder / WEIGHTS))
    return {
        row["point"]: Eraser(
            left=tensors[f"{row['point']}/left"],
            right=tensors[f"{row['point']}/right"],
            bias=tensors.get(f"{row['point']}/bias"),
            correlations=torch.tensor(row["correlations"], dtype=torch.float64),
        )
        for row in record["points"]
    }, record


def load_scrubbed(model: Path, erasers: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return the model of a folder in eval mode, the concept erased in all its layers.

    Raises:
        ModelError: the erasers were fitted on other weights.
    """
    found, record = read_erasers(erasers)
    weights = digest_weights(model)
    if weights != record["model_weights"]:
        raise ModelError(
            f"The erasers in {erasers} were fitted on the weights {record['model_weights'][:8]}, and {model} has "
            f"{weights[:8]}. What is linear in one model is not in another: fit them again on this one."
        )
    loaded, _ = load_any(model, dtype)
    attach(loaded, found)
    return loaded
