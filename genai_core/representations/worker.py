"""What a worker runs to fit and probe erasers: shards of labelled texts in, moments or pooled states out, as JSON.

The model stays loaded between shards. Erasers travel as JSON too, since a worker may be on another machine.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genai_core.data.tokenizer import load_tokenizer
from genai_core.models.families import Family, load_any
from genai_core.representations.erasers import Eraser
from genai_core.representations.moments import decode_floats, encode_floats
from genai_core.representations.states import encode, moments_at, pooled_at

_loaded: dict[tuple[str, int], tuple[Any, Any, Family]] = {}
"""At most one model: (path, time of its newest file) -> (model, tokenizer, family)."""


def moments_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return the moments of a shard's states with its labels: one row a point, {"point", "moments"}.

    Args:
        arguments: "model": a folder; "erasers": as `erasers_to_json`; "points": wanted, in the order of a pass; "n_labels";
            "max_tokens" of a text; "threads": 0 = as it is.
        rows: {"text", "label"}, the label a number from 0.
    """
    model, tokenizer, family = load(arguments)
    texts = encode(tokenizer, family, [row["text"] for row in rows], arguments["max_tokens"])
    labels = [row["label"] for row in rows]
    erasers = erasers_from_json(arguments["erasers"])
    found = moments_at(model, texts, labels, arguments["n_labels"], erasers, arguments["points"])
    return [{"point": point, "moments": moments.to_json()} for point, moments in found.items()]


def pooled_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return every text's mean state at each point, in row order: {point: base64 of float64}; see `moments_shard`."""
    model, tokenizer, family = load(arguments)
    texts = encode(tokenizer, family, [row["text"] for row in rows], arguments["max_tokens"])
    found = pooled_at(model, texts, erasers_from_json(arguments["erasers"]), arguments["points"])
    return [{point: encode_floats(states[row]) for point, states in found.items()} for row in range(len(rows))]


def erasers_to_json(erasers: Mapping[str, Eraser]) -> dict[str, Any]:
    """Return erasers as a JSON value, exact to the bit."""
    return {
        point: {
            "d": eraser.left.shape[0],
            "left": encode_floats(eraser.left),
            "right": encode_floats(eraser.right),
            "bias": None if eraser.bias is None else encode_floats(eraser.bias),
            "correlations": encode_floats(eraser.correlations),
        }
        for point, eraser in erasers.items()
    }


def erasers_from_json(value: Mapping[str, Any]) -> dict[str, Eraser]:
    """Return what `erasers_to_json` wrote."""
    return {
        point: Eraser(
            left=decode_floats(row["left"], row["d"], -1) if row["left"] else torch.zeros(row["d"], 0).double(),
            right=decode_floats(row["right"], -1, row["d"]) if row["right"] else torch.zeros(0, row["d"]).double(),
            bias=None if row["bias"] is None else decode_floats(row["bias"], row["d"]),
            correlations=decode_floats(row["correlations"], -1),
        )
        for point, row in value.items()
    }


def load(arguments: Mapping[str, Any]) -> tuple[Any, Any, Family]:
    """Return the model (float32, on the GPU where there is one), tokenizer and family of a folder, kept for the next shard."""
    if arguments.get("threads"):
        torch.set_num_threads(arguments["threads"])
    path = Path(arguments["model"])
    key = (str(path), max((file.stat().st_mtime_ns for file in path.glob("*")), default=0))
    if key not in _loaded:
        _loaded.clear()  # first, so that two models are never in memory at once
        model, family = load_any(path)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _loaded[key] = (model.to(device), load_tokenizer(path), family)
    return _loaded[key]


def forget() -> None:
    """Drop the model; the next shard loads it again."""
    _loaded.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
