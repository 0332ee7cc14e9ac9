"""Time, memory and disk of a stage before it runs, from the recipe and one short measurement of this machine.

Training costs 6 floating point operations per parameter and token (forward 2, backward 4; Kaplan et al. 2020, arXiv
2001.08361, section 2.1), generation 2. What the machine delivers is measured with one matrix product; the shares of it
that training and generation reach were measured on a 2-core machine and are stated below. A forecast is for planning:
the report tells what happened beside it.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Any

from genai_core.augmentation.outlook import Outlook
from genai_core.config.model import Base, GgufBase, LoraAdapter, ScratchBase
from genai_core.config.objectives import Distillation
from genai_core.config.recipe import Recipe
from genai_core.config.training import TrainingConfig

TRAINING_SHARE = 1.2
"""Of the measured float32 product; bfloat16 pushes it above 1, attention and the optimizer push it down."""

GENERATION_SHARE = 1.8
"""Above 1: prompts asked several times are read once, and most answers end before their limit."""

SCORING_SHARE = 0.7
BUSY = 1.5
"""Processes a core from which on it is told that a forecast holds for a free machine."""

TRAINING_START_SECONDS = 8.0
OTHER_START_SECONDS = 2.0
PREPARATION_SECONDS = 45.0
VERIFY_SECONDS = 5.0
PROMPT_TOKENS = 180
DOCUMENT_TOKENS = 450
"""Read for a document of some 250: windows overlap by half."""

WINDOWS_OVERLAP = 1.8
PREPARATION_START_SECONDS = 6.0
PREPARATION_BYTES_PER_SECOND = 130_000
"""1.5 MB of instructions took 11 s of processor time."""

PREPARATION_MEMORY = 20
"""Bytes held for a byte of text: documents as Python has them, their shingles, their tokens."""

PREPARATION_DISK = 6
USUAL_MICRO_TOKENS = 2048
"""Tokens in one pass: 8 rows of 256, if the plan does not find another number faster."""

RUNTIME_BYTES = 900_000_000
"""A worker process with torch and transformers imported and nothing loaded."""


@lru_cache(maxsize=1)
def measured_flops() -> float:
    """Return floating point operations per second of a float32 product when the machine is free; takes about 0.1 s.

    On a busy machine the clock tells what others leave; the processors' own time tells what they can do.
    """
    import numpy as np

    side = 1024
    left = np.ones((side, side), dtype=np.float32)
    threads = int(os.environ.get("OMP_NUM_THREADS") or cores())
    best = float("inf")
    for _ in range(6):  # the first ones warm up; the best one is what the machine can do when it is let
        start, busy = time.perf_counter(), time.process_time()
        left @ left
        best = min(best, time.perf_counter() - start, (time.process_time() - busy) / threads)
    return 2 * side**3 / best


def cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def busy_with_others() -> float:
    """Return how many processes wanted each core in the last minute; above 1 the forecasts are too short by it."""
    return os.getloadavg()[0] / cores()


def count_parameters(base: Base, vocab_size: int) -> int:
    """Return the number of weights; for a base that is not ours, an estimate from a typical small model."""
    if not isinstance(base, ScratchBase):
        return 135_000_000 if isinstance(base, GgufBase) else 500_000_000
    head_dim = base.d_model // base.n_heads
    attention = 2 * base.d_model * base.d_model + 2 * base.d_model * base.n_kv_heads * head_dim
    layer = attention + 3 * base.d_model * base.d_ff + 2 * base.d_model
    embeddings = vocab_size * base.d_model * (1 if base.tie_embeddings else 2)
    return embeddings + base.n_layers * layer + base.d_model


def forecast_stage(title: str, recipe: Recipe, outlook: Outlook | None = None) -> dict[str, Any]:
    """Return {"seconds", "memory_bytes", "disk_bytes"} of a stage by its title in the table.

    Args:
        title: such as pretrain, train-g1, evaluate-base.
        recipe: the whole.
        outlook: of its data, where that was looked at; else the size of `quickstart`'s is taken.
    """
    vocab = recipe.data.tokenizer.vocab_size if recipe.data.tokenizer.kind == "train" else 49_152
    parameters = count_parameters(recipe.base, vocab)
    model_bytes = 4 * parameters
    training = training_of(title, recipe)
    if training is not None:
        return forecast_training(training, parameters, vocab, activation_bytes(recipe.base, parameters, vocab))
    if title == "augment":
        return forecast_preparation(outlook)
    if title == "verify":
        seconds = VERIFY_SECONDS
    else:
        prompt_tokens = outlook.pair_tokens if outlook else PROMPT_TOKENS
        written = completions_of(title, recipe, outlook) * (prompt_tokens + recipe.evaluation.max_new_tokens)
        read = documents_of(title, recipe, outlook) * (
            WINDOWS_OVERLAP * outlook.document_tokens() if outlook else DOCUMENT_TOKENS
        )
        work = 2 * parameters * (written / GENERATION_SHARE + read / SCORING_SHARE)
        seconds = OTHER_START_SECONDS + work / measured_flops()
    return {"seconds": round(seconds, 1), "memory_bytes": RUNTIME_BYTES + 2 * model_bytes, "disk_bytes": 5_000_000}


def forecast_preparation(outlook: Outlook | None) -> dict[str, Any]:
    """Return the forecast of augmentation: it grows with the text."""
    if outlook is None:
        return {"seconds": PREPARATION_SECONDS, "memory_bytes": RUNTIME_BYTES, "disk_bytes": 60_000_000}
    return {
        "seconds": round(PREPARATION_START_SECONDS + outlook.text_bytes / PREPARATION_BYTES_PER_SECOND, 1),
        "memory_bytes": RUNTIME_BYTES + PREPARATION_MEMORY * outlook.text_bytes,
        "disk_bytes": 5_000_000 + PREPARATION_DISK * outlook.text_bytes,
    }


def activation_bytes(base: Base, parameters: int, vocab: int) -> int:
    """Return what one token leaves behind for the backward pass, in bytes.

    Per layer two norms, q, k, v, the attention's output and the residuals (12 widths), and gate, up and their product
    (4 feed-forward widths). The shape of a base that is not ours is estimated: a width of 24 times its layers.
    """
    if isinstance(base, ScratchBase):
        return 4 * base.n_layers * (12 * base.d_model + 4 * base.d_ff)
    layers = max(1.0, float((parameters - 576 * vocab) / (12 * 24**2)) ** (1 / 3))
    return int(4 * layers * 24 * layers * (12 + 4 * 8 / 3))


def forecast_training(training: TrainingConfig, parameters: int, vocab: int, token_bytes: int) -> dict[str, Any]:
    """Return the forecast of one training run.

    Args:
        training: its config.
        parameters: of the model.
        vocab: tokens.
        token_bytes: what one token leaves behind for the backward pass.
    """
    tokens = training.steps * training.global_batch_tokens
    teacher = count_parameters(training.objective.teacher, vocab) if isinstance(training.objective, Distillation) else 0
    work = ((4 if isinstance(training.tuning, LoraAdapter) else 6) * parameters + 2 * teacher) * tokens
    trained = parameters // 50 if isinstance(training.tuning, LoraAdapter) else parameters
    together = min(training.global_batch_tokens, USUAL_MICRO_TOKENS)
    logits = min(together * vocab * 4, 64 << 20)  # the head keeps no more, training/head.py
    activations = together * token_bytes + 2 * logits
    return {
        "seconds": round(TRAINING_START_SECONDS + work / (TRAINING_SHARE * measured_flops()), 1),
        "memory_bytes": RUNTIME_BYTES + 4 * (parameters + teacher) + 12 * trained + activations,
        "disk_bytes": 4 * parameters + 2 * 12 * trained,
    }


def training_of(title: str, recipe: Recipe) -> TrainingConfig | None:
    """Return the training of a stage, or None if it trains nothing."""
    if title == "pretrain" or title.startswith("pretrain-"):
        return recipe.pretraining
    if title == "finetune":
        return recipe.finetuning
    if title == "train-corrected":
        return recipe.correction.training
    if title.startswith("train-"):
        return recipe.recursion.training
    return None


def documents_of(title: str, recipe: Recipe, outlook: Outlook | None = None) -> int:
    """Return how many documents a stage scores."""
    side = "sealed" if title.startswith("seal-") else "heldout"
    count = _at_most(recipe.evaluation.max_documents, outlook.documents[side] if outlook else None)
    if title.startswith("measure-g"):
        return models_of(title) * count
    return count if title.startswith(("evaluate-", "seal-")) else 0


def models_of(title: str) -> int:
    """Return how many models a generation's measurement asks: candidate and control arm, and once generation 0."""
    return 3 if title == "measure-g1" else 2


def completions_of(title: str, recipe: Recipe, outlook: Outlook | None = None) -> int:
    """Return how many completions a stage asks for."""
    synthesis, correction = recipe.recursion.synthesis, recipe.correction
    train, heldout, sealed = (outlook.pairs[side] if outlook else None for side in ("train", "heldout", "sealed"))
    if title.startswith("synthesize"):
        return _at_most(synthesis.prompts, train) * synthesis.samples_per_prompt
    if title.startswith("measure-g"):
        probes = _at_most(recipe.recursion.probe_samples, heldout)
        return models_of(title) * (probes + _at_most(recipe.evaluation.max_prompts, heldout))
    if title == "sample-corrections":
        return _at_most(correction.prompts, train) * correction.samples_per_prompt
    if title == "measure-correction":
        return _at_most(correction.measure_prompts, heldout) * (2 * correction.best_of + 3)
    if outlook:  # own data has one task, answered open book; pydocs has two
        return _at_most(recipe.evaluation.max_prompts, sealed if title.startswith("seal-") else heldout)
    return 2 * recipe.evaluation.max_prompts


def _at_most(wanted: int, there: int | None) -> int:
    return wanted if there is None else min(wanted, there)
