"""What was written is loaded again by plain transformers in a fresh process, and must say what the model here says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.errors import IntegrityError
from genai_core.models import reload as reload_script

TIMEOUT_SECONDS = 600
QUESTION = "What does textwrap.shorten do?"


@dataclass(frozen=True)
class Reloaded:
    """What the fresh process said."""

    prompt_ids: list[list[int]]
    """Each prompt under the written chat template, by the written tokenizer."""

    logits: list[np.ndarray]
    """Of each prompt, (T, V), float32."""

    reply_ids: list[int]
    """The first few tokens of the most likely answer to the first prompt; none of an encoder."""

    text_ids: list[list[int]]


@dataclass(frozen=True)
class Differences:
    """How far two models are apart on the same positions."""

    largest: float
    """Of any logit; infinite where one is not finite or the shapes differ."""

    same_choice: float
    """Share of positions at which both find the same token most likely."""

    positions: int


def reload_fresh(
    folder: Path, what: str, prompts: Sequence[str] = (QUESTION,), texts: Sequence[str] = (), gguf_file: str = ""
) -> Reloaded:
    """Return what plain transformers says of a folder, or of a GGUF file in it, in a process of its own.

    Args:
        what: the model's name, for the message.
        prompts: at least one; each fits into the model.
        texts: only tokenized.

    Raises:
        IntegrityError: it does not load.
    """
    with tempfile.TemporaryDirectory(prefix="genai-reload-") as place:
        request, answer = Path(place) / "request.json", Path(place) / "answer"
        asked = {"gguf_file": gguf_file, "prompts": list(prompts), "texts": list(texts)}
        request.write_text(json.dumps(asked), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", str(reload_script.__file__), str(folder), str(request), str(answer)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        if done.returncode:
            raise IntegrityError(f"{what} does not load in a fresh process:\n{done.stderr[-2000:]}")
        told = json.loads(answer.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(answer.with_suffix(".npz")) as found:
            logits = [found[str(number)] for number in range(len(prompts))]
    return Reloaded(told["prompt_ids"], logits, told["reply_ids"], told["text_ids"])


def compare_logits(model: Any, reloaded: Reloaded) -> Differences:
    """Return how far a model here is from the one that was loaded again, on the ids that the latter was given."""
    import torch

    largest, same, positions = 0.0, 0, 0
    for ids, theirs in zip(reloaded.prompt_ids, reloaded.logits, strict=True):
        with torch.no_grad():
            ours = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
        apart = np.abs(ours - theirs).max() if ours.shape == theirs.shape else np.inf
        largest = max(largest, float(apart) if np.isfinite(apart) else float("inf"))
        if ours.shape == theirs.shape:
            same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += len(ids)
    return Differences(largest, same / positions, positions)
