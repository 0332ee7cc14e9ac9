"""Real and extra instruction pairs -> packed rows, with real ones always kept: accumulate, never replace.

Training on a model's own text alone loses the tails of the distribution; keeping all real data beside it bounds the
error (Gerstgrasser et al. 2024, arXiv 2404.01413). What is held to a share is trained tokens, because they are what the
loss averages over: with R real ones and a least share s, the extra ones are cut down to R (1 - s) / s.

The other way round where a few hundred verified answers are what shall be learned: among ten thousand real pairs, most of
which are the same questions, they would be lost. With a largest share s of real tokens and E extra ones, the real ones are
cut down to E s / (1 - s), and a pair that is both counts as extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from genai_core.config.generation import DiffusionWriter
from genai_core.data.answer_fill import fill_answer
from genai_core.data.documents import Pair
from genai_core.data.packing import PackedRows, check_seq_len, pack_examples, why_dropped
from genai_core.data.templates import end_of_turn_id, render_examples
from genai_core.data.tokenizer import document_end_id
from genai_core.errors import DataError

Example = tuple[list[int], list[int]]


def build_tuning_rows(
    real: Sequence[Pair],
    extra: Sequence[Pair],
    tokenizer: PreTrainedTokenizerFast,
    seq_len: int,
    min_real_share: float,
    seed: int,
    max_real_share: float = 1.0,
    writer: DiffusionWriter | None = None,
) -> tuple[PackedRows, dict[str, Any]]:
    """Return packed rows and what went into them; the same arguments give the same rows.

    Args:
        real: pairs of the corpus; duplicates, those that do not fit a row, and what `max_real_share` cuts are left out.
        extra: synthetic or corrected pairs; a repetition of any earlier pair is left out.
        tokenizer: with a chat template.
        seq_len: tokens in a row.
        min_real_share: least share of trained tokens from `real`; 0 keeps all extra ones, 1 none.
        seed: which pairs stay when not all may.
        max_real_share: largest share of trained tokens from `real`; 1 keeps all of them. Without extra pairs it does nothing.
        writer: how the trained model will write, if it fills in masks: then answers are filled up (`answer_fill`).

    Raises:
        DataError: nothing is left to train on; or the template breaks more than 0.1 % of the pairs.
    """
    check_seq_len(seq_len)
    seen: set[tuple[str, str]] = set()
    dropped: dict[str, dict[str, int]] = {"real": {}, "extra": {}}
    if extra and max_real_share < 1:
        kept_extra = _render(extra, tokenizer, seq_len, seen, dropped["extra"], writer)
        kept_real = _render(real, tokenizer, seq_len, seen, dropped["real"], writer)
        kept_real = _cut(kept_real, kept_extra, max_real_share, seed, dropped["real"])
    else:
        kept_real = _render(real, tokenizer, seq_len, seen, dropped["real"], writer)
        kept_extra = _render(extra, tokenizer, seq_len, seen, dropped["extra"], writer)
    chosen = kept_extra
    if min_real_share > 0:
        chosen = _cut(kept_extra, kept_real, 1 - min_real_share, seed, dropped["extra"])
    if not kept_real and not chosen:
        raise DataError(
            f"No instruction pair is left to train on, of {len(real)} real and {len(extra)} extra ones; dropped: {dropped}. "
            "If they are too_long, raise seq_len; if over_share, give real pairs or lower min_real_share."
        )
    rows = pack_examples([*kept_real, *chosen], seq_len, pad_id=tokenizer.pad_token_id or 0)
    real_tokens, extra_tokens = _count_trained(kept_real), _count_trained(chosen)
    stats = {
        "rows": len(rows),
        "examples": {"real": len(kept_real), "extra": len(chosen)},
        "trained_tokens": {"real": real_tokens, "extra": extra_tokens},
        "real_share": real_tokens / (real_tokens + extra_tokens),
        "efficiency": rows.efficiency(),
        "dropped": {origin: dict(sorted(reasons.items())) for origin, reasons in dropped.items()},
    }
    return rows, stats


def _render(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerFast,
    seq_len: int,
    seen: set[tuple[str, str]],
    dropped: dict[str, int],
    writer: DiffusionWriter | None,
) -> list[Example]:
    """Return the examples that can be packed; add to `seen` and, by reason, to `dropped`."""
    fresh: list[tuple[str, str]] = []
    for pair in pairs:
        key = (pair.prompt, pair.completion)
        if key in seen:
            dropped["duplicate"] = dropped.get("duplicate", 0) + 1
        else:
            seen.add(key)
            fresh.append(key)
    end_id = 0 if writer is None else end_of_turn_id(tokenizer) or document_end_id(tokenizer)
    examples: list[Example] = []
    for example in render_examples(tokenizer, fresh):
        reason = "not_a_prefix" if example is None else why_dropped(*example, seq_len)
        if example is None or reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        elif writer is None:
            examples.append(example)
        else:
            examples.append(fill_answer(*example, end_id, writer, seq_len))
    return examples


def _cut(
    examples: list[Example], others: list[Example], max_share: float, seed: int, dropped: dict[str, int]
) -> list[Example]:
    """Return as many examples as make up so large a share beside the others, in their own order, drawn by the seed."""
    if max_share >= 1 or not examples:
        return examples
    budget = _count_trained(others) * max_share / (1 - max_share)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(examples))
    tokens = np.cumsum([_count_trained([examples[index]]) for index in order])
    chosen = [examples[index] for index in sorted(order[: int(np.searchsorted(tokens, budget, side="right"))])]
    if len(chosen) < len(examples):
        dropped["over_share"] = len(examples) - len(chosen)
    return chosen


def _count_trained(examples: Sequence[Example]) -> int:
    """Return the positions that carry a loss; a segment's first never does."""
    return sum(sum(mask[1:]) for _, mask in examples)
