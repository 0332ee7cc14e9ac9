"""Prefix language modelling: the beginning of a segment is read from both sides, the rest is predicted causally.

    allow(i, j) = j < n or j <= i          n tokens of prefix, i and j in one segment
    loss = sum_{t >= n}  -log p(x[t] | prefix, x[n .. t-1])                      averaged over the predicted tokens

Raffel et al. 2020 (T5, arXiv 1910.10683, section 3.2.1); Wang et al. 2022 (arXiv 2204.05832). Of text the prefix is drawn
anew at every visit, uniform from 1 to L - 1 tokens of a segment of L; of an instruction pair it is the prompt. Reading
a prompt from both sides costs a causal checkpoint quality (GritLM, arXiv 2402.09906, table 5: 55.2 -> 50.7), so this is for
models that learn it from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.models.backbone import see_segments
from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, TokenObjective

Prefix = Literal["random", "prompt"]


class PrefixLmObjective(TokenObjective):
    """`prefix_lm`, in nats per predicted token."""

    name = "prefix_lm"
    is_likelihood = False

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix

    def forwards(self) -> Sequence[Forward]:
        """Return one pass that sees what `corrupt` says."""
        return (Forward(outputs=frozenset({"logps"}), attention="given"),)

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows with what is seen, and labels after the prefixes only."""
        positions, labels = batch["position_ids"], batch["labels"]
        lengths = self._draw(batch) if self._prefix == "random" else _prompts(batch)  # (B, T) of each token's segment
        places = positions.unsqueeze(1)  # (B, 1, T) of the token that is seen
        before = places <= positions.unsqueeze(2)
        seen = see_segments(batch["segment_ids"]) & (before | (places < lengths.unsqueeze(1)))
        return {**batch, "labels": labels.masked_fill(positions < lengths, IGNORE_INDEX), "seen": seen}

    def _draw(self, batch: Batch) -> Tensor:
        """Return the length of a random prefix of each token's segment, (B, T)."""
        positions = batch["position_ids"].cpu().numpy()
        found = np.zeros_like(positions)
        for row, seed in enumerate(batch["noise"].tolist()):
            starts = np.flatnonzero(positions[row] == 0)
            sizes = np.diff(starts, append=positions.shape[1])
            draws = np.random.Generator(np.random.PCG64(seed)).random(len(starts))
            found[row] = np.repeat(1 + (draws * np.maximum(1, sizes - 1)).astype(np.int64), sizes)
        return torch.from_numpy(found).to(batch["position_ids"].device)


def _prompts(batch: Batch) -> Tensor:
    """Return the position of the first label of each token's segment, (B, T); the segment's length if it has none."""
    positions, segments = batch["position_ids"], batch["segment_ids"]  # numbered within each row
    far = positions.shape[1]
    first = torch.where(batch["labels"] != IGNORE_INDEX, positions, far)
    segments = segments - segments.amin(dim=1, keepdim=True) if len(segments) else segments
    return torch.full_like(positions, far).scatter_reduce(1, segments, first, reduce="amin").gather(1, segments)
