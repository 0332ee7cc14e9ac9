"""Block diffusion: from left to right over blocks, masked diffusion inside a block; a bound between the two likelihoods.

    -log p(x) <= sum_b  E_l [ (n_b / l) * sum over l masked of the n_b tokens of block b of
                              -log p(x[t] | unmasked tokens of block b, all tokens of the blocks before it) ]

Arriola et al. 2025 (BD3-LM, arXiv 2503.09573, equation 4). Blocks are the stretches of L' positions of a segment. L' = 1 is
the autoregressive likelihood, exact and without a draw; one block for all is masked diffusion. As there, the time is
integrated out: l is uniform on {1 .. n_b}, n_b the tokens of the block that can be masked (see masked_diffusion.py).

One pass computes all blocks. The model is shown the row twice, masked and as it is, [noisy ; clean], with positions that
begin anew, and who sees whom (arXiv 2503.09573, section 3.1) is:

    noisy block b    itself, and the clean blocks before it
    clean block b    itself, and the clean blocks before it          L^2 + L L' pairs of (2 L)^2, for one segment of L

- l is drawn for each block, stratified over the blocks of all rows of the step: the K blocks of a row take the K cells of
  [0, 1) in an order of the row's own, shifted by the row's place in the step.
- `rates` (beta, omega) leave the shares of masked tokens outside of it out while training, which lowers the variance and
  is no bound any more (section 5.3 there); a measurement always draws from all.
- `offset` 1 reads a prediction at the place before, to start from a causal checkpoint. What stands before the first token of
  a block is the end of the clean block before, and there it is read; so L' = 1 is next-token prediction with a causal
  model's own weights, and one block for all still is masked diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.models.backbone import see_segments
from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, TokenObjective


class BlockDiffusionObjective(TokenObjective):
    """`block_diffusion`, in nats per token that can be masked: an upper bound of the negative log-likelihood."""

    name = "block_diffusion"
    is_likelihood = True

    def __init__(
        self,
        mask_id: int,
        block_length: int,
        offset: Literal[0, 1] = 0,
        rates: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._mask_id = mask_id
        self._block_length = block_length
        self._offset: Literal[0, 1] = offset
        self._rates = rates

    def forwards(self) -> Sequence[Forward]:
        """Return one pass over the doubled row that gives log-probabilities, among which that of the mask is none."""
        return (Forward(outputs=frozenset({"logps"}), attention="given", offset=self._offset, excluded=self._mask_id),)

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the doubled rows, (B, 2 T); `maskable` and `weight` (n_b / l) are (B, T), of the data's own places."""
        ids, labels, positions = batch["input_ids"], batch["labels"], batch["position_ids"]
        blocks = (positions % self._block_length == 0).cumsum(
            dim=1
        )  # of the row; a segment begins at 0, so none is shared
        maskable = labels != IGNORE_INDEX
        masked, weight = self._draw(batch, blocks, maskable, progress)
        found = labels.masked_fill(~masked, IGNORE_INDEX)
        first = (positions % self._block_length == 0) & (self._offset == 1)
        return {
            **batch,
            "input_ids": torch.cat([ids.masked_fill(masked, self._mask_id), ids], dim=1),
            "labels": torch.cat(
                [found.masked_fill(first, IGNORE_INDEX), found.masked_fill(~first, IGNORE_INDEX)], dim=1
            ),
            "position_ids": torch.cat([positions, positions], dim=1),
            "seen": see_blocks(batch["segment_ids"], blocks),
            "maskable": maskable,
            "weight": weight,
        }

    def token_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the weighted negative log-likelihood of each masked token, (B, T), 0 elsewhere."""
        noisy, clean = super().token_losses(outputs, batch).chunk(2, dim=1)
        return (noisy + clean) * batch["weight"].to(noisy.dtype)

    def counted(self, batch: Batch) -> Tensor:
        """Return all tokens that could have been masked, (B, T) bool."""
        return batch["maskable"]

    def _draw(self, batch: Batch, blocks: Tensor, maskable: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Return which tokens are masked and the weight of each one's block, (B, T) both."""
        low, high = self._rates if progress < 1 else (0.0, 1.0)  # 1 is a measurement
        masked = np.zeros(maskable.shape, dtype=bool)
        weight = np.zeros(maskable.shape)
        of_blocks, can = blocks.cpu().numpy(), maskable.cpu().numpy()
        for row, (seed, place) in enumerate(zip(batch["noise"].tolist(), batch["place"].tolist(), strict=True)):
            tokens = np.flatnonzero(can[row])
            if not len(tokens):
                continue
            generator = np.random.Generator(np.random.PCG64(seed))
            _, which, sizes = np.unique(of_blocks[row, tokens], return_inverse=True, return_counts=True)
            cells = (generator.permutation(len(sizes)) + place) / len(sizes)  # (K,) in [0, 1)
            least = np.maximum(1, np.ceil(low * sizes)).astype(np.int64)
            most = np.maximum(least, np.floor(high * sizes)).astype(np.int64)
            counts = np.minimum(least + (cells * (most - least + 1)).astype(np.int64), most)
            # the places of a block in random order, the first l of which are masked
            order = np.lexsort((generator.random(len(tokens)), which))
            rank = np.arange(len(tokens)) - (np.cumsum(sizes) - sizes)[which[order]]
            masked[row, tokens[order]] = rank < counts[which[order]]
            weight[row, tokens] = (sizes / counts)[which]
        device = maskable.device
        return torch.from_numpy(masked).to(device), torch.from_numpy(weight).to(device)


def see_blocks(segment_ids: Tensor, blocks: Tensor) -> Tensor:
    """Return who sees whom in a doubled row, (B, 2 T, 2 T) bool.

    Args:
        segment_ids: (B, T).
        blocks: (B, T) number of each token's block, growing along the row.
    """
    together = see_segments(segment_ids)
    own, others = blocks.unsqueeze(2), blocks.unsqueeze(1)
    noisy = torch.cat([together & (others == own), together & (others < own)], dim=2)
    clean = torch.cat([torch.zeros_like(together), together & (others <= own)], dim=2)
    return torch.cat([noisy, clean], dim=1)
