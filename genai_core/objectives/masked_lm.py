"""Masked language modelling: some tokens are hidden, and found again from both sides.

    loss = sum_{b,t hidden}  -log p(x[b,t] | corrupted row b)            averaged over the hidden tokens of the step

Devlin et al. 2019 (arXiv 1810.04805); a new mask at every visit of a row as in RoBERTa (Liu et al. 2019, arXiv
1907.11692, section 4.1), drawn from the visit's own noise, so that a resume hides the same tokens.

`offset` says where the prediction of a hidden token is read:
    0    at its own place, as BERT does
    1    at the place before it, as a causal model predicts: masked next-token prediction (GPT-BERT, Charpentier and Samuel
         2024, arXiv 2410.24159; LLM2Vec, BehnamGhader et al. 2024, arXiv 2404.05961). One head then serves both.

Hidden are only tokens that carry a label, so no special token, no padding, no prompt of a supervised row, and never a
segment's first token, before which there is no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from genai_core.data.masking import Masker
from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, TokenObjective


class MaskedLmObjective(TokenObjective):
    """`masked_lm` (or `mntp`, read at the place before), in nats per hidden token."""

    is_likelihood = False

    def __init__(self, masker: Masker, offset: Literal[0, 1] = 0) -> None:
        self._masker = masker
        self._offset: Literal[0, 1] = offset
        self.name = "mntp" if offset else "masked_lm"

    def forwards(self) -> Sequence[Forward]:
        """Return one bidirectional pass that gives log-probabilities."""
        return (Forward(outputs=frozenset({"logps"}), attention="bidirectional", offset=self._offset),)

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows with tokens hidden, and labels at the hidden ones only."""
        ids = batch["input_ids"].cpu().numpy()
        allowed = batch["labels"].cpu().numpy() != IGNORE_INDEX
        rate = self._masker.rate(progress)
        noisy, hidden = np.empty_like(ids), np.empty(ids.shape, dtype=bool)
        for row, seed in enumerate(batch["noise"].tolist()):
            rng = np.random.Generator(np.random.PCG64(seed))
            noisy[row], hidden[row] = self._masker.hide(ids[row], allowed[row], rate, rng)
        labels = torch.from_numpy(np.where(hidden, ids, IGNORE_INDEX))
        device = batch["input_ids"].device
        return {**batch, "input_ids": torch.from_numpy(noisy).to(device), "labels": labels.to(device)}
