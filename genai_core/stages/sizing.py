"""How large a model, how many steps: from the size of the text, a budget of minutes, and what this machine delivers.

Text is read at most four times: up to there repeated tokens are worth nearly as much as new ones (Muennighoff et al.
2023, arXiv 2305.16264). A vocabulary of one entry for some 600 bytes: the tokenizer of `quickstart` has 4,096 for 2.6 MB.
Steps of 1,024 tokens: little text makes few steps, and a model needs hundreds, whatever their size. Where there is more of it,
steps of 2,048 teach as much a token (1.449 against 1.461 bits per byte, docs/results/quality.md) in less time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from genai_core.augmentation.outlook import Outlook
from genai_core.config.load import validate
from genai_core.config.recipe import Recipe
from genai_core.stages.forecast import forecast_stage

BYTES_AN_ENTRY = 600
LEAST_ENTRIES, MOST_ENTRIES = 512, 8192
READINGS = 4
PAIR_READINGS = 3
LEAST_STEPS = 20
STEP_TOKENS = 1024
SMALL_TEXT_BYTES = 250_000
PRETRAINING_SHARE = 0.6
LEAST_SHARE_FOR_TRAINING = 0.5

STAGES = (
    "augment",
    "pretrain",
    "finetune",
    "synthesize-g1",
    "train-control-1",
    "train-g1",
    "measure-g1",
    "sample-corrections",
    "train-corrected",
    "measure-correction",
    "evaluate-base",
    "evaluate-candidate",
    "verify",
    "seal-base",
    "seal-candidate",
)

SMALL = {"n_layers": 4, "d_model": 128, "n_heads": 4, "n_kv_heads": 4, "d_ff": 344}
USUAL = {"n_layers": 6, "d_model": 256, "n_heads": 4, "n_kv_heads": 4, "d_ff": 688}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was chosen, and the time it will take."""

    vocab_size: int
    base: dict[str, Any]
    pretraining_steps: int
    finetuning_steps: int
    readings: float
    """How often pre-training reads the text."""

    pair_readings: float
    seconds: float
    bounded_by: str
    """What ended the steps of pre-training: 'text', 'time', or 'least', where the text asks for fewer than the least."""


def vocabulary_of(text_bytes: int) -> int:
    """Return the size of a tokenizer's vocabulary: a power of two."""
    wanted = 1 << round(math.log2(max(1, text_bytes / BYTES_AN_ENTRY)))
    return min(MOST_ENTRIES, max(LEAST_ENTRIES, wanted))


def size(values: dict[str, Any], outlook: Outlook, minutes: float) -> Sizes:
    """Return the sizes for a recipe's values, of which tokenizer, base and steps are still open.

    Args:
        values: the recipe as plain values; not changed.
        outlook: of its data.
        minutes: what the whole run may take here; little data takes less.
    """
    vocab = vocabulary_of(outlook.text_bytes)
    base = SMALL if outlook.text_bytes < SMALL_TEXT_BYTES else USUAL
    bare = _with(values, vocab, base, 1, 1)
    fixed = sum(forecast_stage(title, bare, outlook)["seconds"] for title in STAGES)
    longer = _with(values, vocab, base, 1001, 1)
    a_step = (forecast_stage("pretrain", longer)["seconds"] - forecast_stage("pretrain", bare)["seconds"]) / 1000
    budget = 60 * minutes
    free = max(LEAST_SHARE_FOR_TRAINING * budget, budget - fixed)
    text_steps = READINGS * outlook.tokens() / STEP_TOKENS
    pair_steps = PAIR_READINGS * outlook.pairs["train"] * outlook.pair_tokens / STEP_TOKENS
    tune = _round(min(pair_steps, (1 - PRETRAINING_SHARE) * free / a_step))
    steps = _round(min(text_steps, free / a_step - tune))
    bounded = "time" if text_steps > steps * 1.1 else "text" if text_steps > LEAST_STEPS else "least"
    return Sizes(
        vocab_size=vocab,
        base=base,
        pretraining_steps=steps,
        finetuning_steps=tune,
        readings=steps * READINGS / max(text_steps, 1e-9),
        pair_readings=tune * PAIR_READINGS / max(pair_steps, 1e-9),
        seconds=fixed + (steps + tune) * a_step,
        bounded_by=bounded,
    )


def _round(steps: float) -> int:
    """Return the steps as people write them: two digits, and not so few that nothing is learned."""
    if steps <= LEAST_STEPS:
        return LEAST_STEPS
    unit = 10 ** (int(math.log10(steps)) - 1)
    return int(steps // unit * unit)


def _with(values: dict[str, Any], vocab: int, base: dict[str, Any], pretraining: int, finetuning: int) -> Recipe:
    data = {**values["data"], "tokenizer": {"kind": "train", "vocab_size": vocab}}
    seq_len = data["seq_len"]
    training = {"global_batch_tokens": STEP_TOKENS, "seq_len": seq_len}
    later = {"training": {**training, "steps": 20}}
    return validate(
        {
            **values,
            "data": data,
            "base": {"kind": "scratch", "max_seq_len": 2 * seq_len, **base},
            "pretraining": {**training, "steps": pretraining},
            "finetuning": {**training, "steps": finetuning},
            "recursion": {**later, "synthesis": {"prompts": 192}, "probe_samples": 48},
            "correction": {**later, "prompts": 192, "measure_prompts": 100},
            "evaluation": {"max_documents": 100, "max_prompts": 100},
        },
        "the proposed recipe",
    )
