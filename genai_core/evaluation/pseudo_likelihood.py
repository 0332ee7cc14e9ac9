"""Pseudo-log-likelihood: how likely a masked model finds each token of a text, given all the others.

    PLL(x) = sum_i log p(x_i | x with i masked)            PPPL = exp(-sum over texts PLL / number of scored tokens)

Salazar et al. 2020 (arXiv 1910.14659). One pass a token. It is no likelihood: its factors do not come from one joint
distribution in general, and it must not stand beside the perplexity of a causal model (objectives.md 3.7).

A word of several pieces is found too likely, because the other pieces give it away. `within_words` masks, with a token,
the later pieces of its word as well (Kauf and Ivanova 2023, arXiv 2305.10588, "PLL-word-l2r").
One pass over the unmasked text is not the same and finds everything too likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.data.masking import Vocabulary
from genai_core.models.backbone import head_bias, head_states, head_weight, hidden_states
from genai_core.objectives.base import IGNORE_INDEX
from genai_core.training.head import label_logps


@torch.no_grad()
def pseudo_logps(
    model: Any,
    ids: Sequence[int],
    vocabulary: Vocabulary,
    *,
    offset: int = 0,
    within_words: bool = True,
    batch_rows: int = 32,
) -> Tensor:
    """Return the log-probability of each token given the others, (T,) in nats; 0 for special ones, which are not scored.

    Args:
        model: trained with a masked objective.
        ids: (T,) of one text.
        vocabulary: the mask, the special tokens, where words begin.
        offset: where the model predicts: 0 at the token's own place, 1 at the one before it (then the first token is not
            scored either: there is no place before it).
        within_words: whether the later pieces of a word are hidden together with an earlier one.
        batch_rows: copies of the text in one pass.
    """
    row = np.asarray(ids, dtype=np.int64)
    scored = [at for at in range(offset, len(row)) if not vocabulary.is_special[row[at]]]
    device = head_weight(model).device
    found = torch.zeros(len(row), dtype=torch.float64)
    for start in range(0, len(scored), batch_rows):
        part = scored[start : start + batch_rows]
        copies = np.tile(row, (len(part), 1))
        labels = np.full(copies.shape, IGNORE_INDEX)
        for index, at in enumerate(part):
            copies[index, at : _end_of_word(row, at, vocabulary) if within_words else at + 1] = vocabulary.mask_id
            labels[index, at] = row[at]
        shown = torch.from_numpy(copies).to(device)
        seen = torch.ones(len(part), len(row), len(row), dtype=torch.bool, device=device)
        positions = torch.arange(len(row), device=device).expand(len(part), -1)
        hidden = hidden_states(model, shown, positions, seen)
        logps = label_logps(
            head_states(model, hidden),
            head_weight(model),
            torch.from_numpy(labels).to(device),
            bias=head_bias(model),
            offset=offset,
            excluded=vocabulary.mask_id,
        )
        found[part] = logps.sum(dim=1).double().cpu()
    return found


def _end_of_word(row: np.ndarray, at: int, vocabulary: Vocabulary) -> int:
    """Return where the word that position `at` is in ends."""
    end = at + 1
    while end < len(row) and not vocabulary.begins_word[row[end]] and not vocabulary.is_special[row[end]]:
        end += 1
    return end


def pseudo_perplexity(logps: Sequence[Tensor], scored: int) -> float:
    """Return the pseudo-perplexity of texts.

    Args:
        logps: of each text, from `pseudo_logps`.
        scored: tokens that were scored, over all texts.

    Raises:
        ValueError: nothing was scored.
    """
    if scored < 1:
        raise ValueError("no token was scored, so there is no pseudo-perplexity")
    return math.exp(-float(sum(one.sum() for one in logps)) / scored)
