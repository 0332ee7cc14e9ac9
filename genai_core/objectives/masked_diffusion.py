"""Masked (absorbing-state) diffusion: a bound on the likelihood of text, out of masked language modelling at all rates.

    l ~ U{1 .. n},  n = tokens of the row that can be masked;  l of them, chosen at random, are masked
    loss = sum_{b,t masked}  (n_b / l_b) * -log p(x[b,t] | unmasked tokens of row b)        averaged over *all* n

This is the continuous-time negative ELBO of masked diffusion, with the time integrated out: Sahoo et al. 2024 (MDLM, arXiv
2406.07524, equation 10), Ou et al. 2024 (RADD, arXiv 2406.03736, theorem 2), Nie et al. 2025 (LLaDA, arXiv 2502.09992,
equation 6, its likelihood). It bounds -log p(x) from above and is the expectation over all orders of writing the row.
Drawing a time t, masking every token with probability t and weighing by 1/t has the same expectation for every noise
schedule, and more variance: a row that hides one token of a thousand by chance weighs a thousand there. Dividing by the
masked tokens instead would be another number (diffusion page, 4.7).

- l is stratified over the rows of the whole optimizer step, not over a rank or a micro-batch.
- Substitution (SUBS): the mask is never predicted, and an unmasked token carries no loss.
- Only tokens with a label can be masked: of a supervised row the answer alone (LLaDA's fine-tuning); never a segment's
  first token. End tokens are text to be predicted like any other.
- Segments of a packed row do not see each other, and a random order of the row is one of each segment: the row's bound is
  the sum of theirs.
- From a causal checkpoint attention may open step by step: with `anneal` a token sees what is before it, and each token
  after it with the probability min(1, progress / anneal), drawn anew for every pair and visit of a row (DiffuLLaMA,
  section 3.2: "attention mask annealing"). A measurement sees all.
- `offset` 1 reads a prediction at the place before the masked token, where a causal model has it (DiffuLLaMA, Gong et al.
  2024, arXiv 2410.17891; Dream, Ye et al. 2025, arXiv 2508.15487): to start from a causal checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.models.backbone import see_segments
from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, TokenObjective

_OPENING = 0x6F70  # tells the streams of attention from those of masks


class MaskedDiffusionObjective(TokenObjective):
    """`masked_diffusion`, in nats per token that can be masked: an upper bound of the negative log-likelihood."""

    name = "masked_diffusion"
    is_likelihood = True

    def __init__(self, mask_id: int, offset: Literal[0, 1] = 0, anneal: float = 0.0) -> None:
        self._mask_id = mask_id
        self._offset: Literal[0, 1] = offset
        self._anneal = anneal

    def forwards(self) -> Sequence[Forward]:
        """Return one pass that gives log-probabilities, among which that of the mask is none."""
        return (
            Forward(
                outputs=frozenset({"logps"}),
                attention="given" if self._anneal else "bidirectional",
                offset=self._offset,
                excluded=self._mask_id,
            ),
        )

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows with l tokens masked, l from each one's place; `weight` is n / l, (B,)."""
        ids, labels, device = batch["input_ids"], batch["labels"], batch["input_ids"].device
        maskable = (labels != IGNORE_INDEX).cpu().numpy()
        masked = np.zeros(maskable.shape, dtype=bool)
        opened = {"seen": self._open(batch, progress)} if self._anneal else {}
        weight = np.zeros(len(maskable))
        for row, (seed, place) in enumerate(zip(batch["noise"].tolist(), batch["place"].tolist(), strict=True)):
            tokens = np.flatnonzero(maskable[row])
            if not len(tokens):
                continue
            count = 1 + int(place * len(tokens))
            chosen = np.random.Generator(np.random.PCG64(seed)).choice(tokens, count, replace=False)
            masked[row, chosen] = True
            weight[row] = len(tokens) / count
        hidden = torch.from_numpy(masked).to(device)
        return {
            **batch,
            **opened,
            "input_ids": ids.masked_fill(hidden, self._mask_id),
            "labels": labels.masked_fill(~hidden, IGNORE_INDEX),
            "maskable": labels != IGNORE_INDEX,
            "weight": torch.from_numpy(weight).to(device),
        }

    def _open(self, batch: Batch, progress: float) -> Tensor:
        """Return what is seen at this point of the training, (B, T, T) bool."""
        seen, share = see_segments(batch["segment_ids"]), progress / self._anneal
        if share >= 1:
            return seen
        length = seen.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
        after = [
            np.random.Generator(np.random.PCG64([seed, _OPENING])).random((length, length)) < share
            for seed in batch["noise"].tolist()
        ]
        return seen & (before | torch.from_numpy(np.array(after, dtype=bool).reshape(seen.shape)).to(seen.device))

    def token_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the weighted negative log-likelihood of each masked token, (B, T), 0 elsewhere."""
        return super().token_losses(outputs, batch) * batch["weight"].to(outputs["logps"].dtype)[:, None]

    def counted(self, batch: Batch) -> Tensor:
        """Return all tokens that could have been masked, (B, T) bool."""
        return batch["maskable"]
