"""Masked (absorbing-state) diffusion: a bound on the likelihood of text, out of masked language modelling at all rates.

    t ~ U(0, 1);  every token of the row is masked with probability t
    loss = sum_{b,t masked}  (1 / t_b) * -log p(x[b,t] | unmasked tokens of row b)        averaged over *all* tokens

The continuous-time negative ELBO with the linear schedule alpha_t = 1 - t: Sahoo et al. 2024 (MDLM, arXiv 2406.07524,
equation 10), Shi et al. 2024 (MD4, arXiv 2406.04329), Nie et al. 2025 (LLaDA, arXiv 2502.09992, equation 3). It bounds
-log p(x) from above; the weight times the chance to be masked integrates to one for every schedule, so the schedule
changes the variance only, and there is none to choose here. Dividing by the masked tokens instead would be another
number (diffusion page, 4.7).

- t is stratified over the rows of the whole optimizer step, not over a rank or a micro-batch.
- Substitution (SUBS): the mask is never predicted, and an unmasked token carries no loss.
- Only tokens with a label can be masked: of a supervised row the answer alone (LLaDA's fine-tuning); never a segment's
  first token. End tokens are text to be predicted like any other.
- `offset` 1 reads a prediction at the place before the masked token, where a causal model has it (DiffuLLaMA, Gong et al.
  2024, arXiv 2410.17891; Dream, Ye et al. 2025, arXiv 2508.15487): to start from a causal checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, LossTerms, Term

LEAST_TIME = 1e-3


class MaskedDiffusionObjective:
    """`masked_diffusion`, in nats per token that can be masked: an upper bound of the negative log-likelihood."""

    is_likelihood = True

    def __init__(self, mask_id: int, offset: Literal[0, 1] = 0) -> None:
        self._mask_id = mask_id
        self._offset: Literal[0, 1] = offset

    def forwards(self) -> Sequence[Forward]:
        """Return one bidirectional pass that gives log-probabilities, among which that of the mask is none."""
        return (
            Forward(
                outputs=frozenset({"logps"}),
                attention="bidirectional",
                offset=self._offset,
                excluded=self._mask_id,
            ),
        )

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows masked at the time that is drawn from each one's place; `weight` is 1 / t, (B,)."""
        device, ids, labels = batch["input_ids"].device, batch["input_ids"], batch["labels"]
        times = LEAST_TIME + (1 - LEAST_TIME) * batch["place"].double()  # (B,)
        draws = np.empty(ids.shape)
        for row, seed in enumerate(batch["noise"].tolist()):
            draws[row] = np.random.Generator(np.random.PCG64(seed)).random(ids.shape[1])
        maskable = labels != IGNORE_INDEX
        masked = maskable & (torch.from_numpy(draws).to(device) < times[:, None])
        return {
            **batch,
            "input_ids": ids.masked_fill(masked, self._mask_id),
            "labels": labels.masked_fill(~masked, IGNORE_INDEX),
            "maskable": maskable,
            "weight": 1 / times,
        }

    def token_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the weighted negative log-likelihood of each masked token, (B, T), 0 elsewhere."""
        masked = batch["labels"] != IGNORE_INDEX
        return -outputs["logps"] * masked * batch["weight"].to(outputs["logps"].dtype)[:, None]

    def counted(self, batch: Batch) -> Tensor:
        """Return all tokens that could have been masked, (B, T) bool."""
        return batch["maskable"]

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of tokens that could have been masked."""
        return {"masked_diffusion": self.counted(batch).sum()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return the summed bound and its count."""
        return LossTerms(
            {"masked_diffusion": Term(self.token_losses(outputs, batch).sum(), self.counts(batch)["masked_diffusion"])}
        )
