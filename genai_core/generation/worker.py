"""What a generation worker runs: shards of JSON rows in, JSON rows out; the model stays loaded between shards."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from genai_core.config.generation import SamplingConfig
from genai_core.data.tokenizer import load_tokenizer
from genai_core.generation.diffusion_engine import open_engine
from genai_core.generation.scoring import score
from genai_core.generation.types import Request
from genai_core.models.load import load_model
from genai_core.models.process_memory import keep_freed_memory, return_freed_memory

_loaded: dict[tuple[str, int], tuple[Any, Any]] = {}
"""At most one model: (path, time of its newest file) -> (model, tokenizer)."""


def generate_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return one completion a request, in row order, as JSON rows.

    Args:
        arguments: "model": a model artifact's folder; "sampling": a SamplingConfig as JSON; "threads": 0 = as it is.
        rows: requests as JSON.
    """
    model, tokenizer = load_shard_model(arguments)
    requests = [Request(**row) for row in rows]
    sampling = SamplingConfig.model_validate(arguments["sampling"])
    engine = open_engine(model, tokenizer, Path(arguments["model"]))
    return [completion.to_json() for completion in engine.generate(requests, sampling)]


def score_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return the loss of every document or answer, in row order; see `scoring.score`.

    Args:
        arguments: "model": a model artifact's folder; "threads": 0 = as it is.
        rows: {"row_id", "text"} or {"row_id", "prompt", "completion"}.
    """
    model, tokenizer = load_shard_model(arguments)
    return score(model, tokenizer, rows)


def forget() -> None:
    """Drop the model; the next shard loads it again."""
    _loaded.clear()
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_shard_model(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Return the model (float32, eval, on the GPU where there is one) and tokenizer of a folder, kept until another comes."""
    if arguments.get("threads"):
        torch.set_num_threads(arguments["threads"])
    path = Path(arguments["model"])
    key = (str(path), max((file.stat().st_mtime_ns for file in path.glob("*")), default=0))
    if key not in _loaded:
        keep_freed_memory()
        _loaded.clear()  # first, so that two models are never in memory at once
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _loaded[key] = (load_model(path, dtype=torch.float32).to(device).eval(), load_tokenizer(path))
    return _loaded[key]
