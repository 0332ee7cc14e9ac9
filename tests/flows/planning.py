"""Plans of flows: what would be computed, and bases in folders of which a plan reads no more than their config."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save_file

from flows.registry import find_flow
from genai_core.config.load import load_recipe
from genai_core.config.settings import read_settings
from tasks.session import open_session

HIDES = "pretraining.objective={kind: masked_lm}"
SCRATCH_ENCODER = (
    "base={kind: scratch, architecture: bert, n_layers: 2, d_model: 64, n_heads: 4}",
    "data.tokenizer.mask_token=true",
    HIDES,
)


def planned(home: Path, flow: str, *changes: str) -> list[tuple[str, str]]:
    """Return the stages of a plan of the recipe `minute` and what is to become of them."""
    recipe = load_recipe("minute", list(changes)).seeded()
    with open_session(recipe.name, recipe.compute, settings=read_settings(home=home), planning=True) as session:
        find_flow(flow)[1](recipe)
        return [(row.name, row.status) for row in session.rows]


def folder_base(folder: Path, written: str) -> tuple[str, ...]:
    """Return the overrides of a base in a folder, written by a class of transformers, that learns to fill in."""
    folder.mkdir()
    save_file({}, folder / "model.safetensors")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"architectures": [written], "model_type": "bert"}))
    return f"base={{kind: folder, path: {folder}}}", "data.tokenizer={kind: base}", HIDES
