"""How likely a masked diffusion model finds a text: an upper bound of its negative log-likelihood, by Monte Carlo.

    bound(x) = E_{l ~ U{1..n}} E_{l of n tokens masked} [ (n / l) * sum over the masked of -log p(token | unmasked) ]

of masked diffusion; of block diffusion the sum over blocks, each given the clean ones before it (LLaDA, Nie et al. 2025, arXiv 2502.09992, equation 6; BD3-LM, Arriola et
al. 2025, arXiv 2503.09573, equation 4), with l spread evenly over the samples. It is reported with its
standard error and named a bound: beside the exact likelihood of a causal model it can only look worse than it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from genai_core.data.order import noise_for_step
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.block_diffusion import BlockDiffusionObjective
from genai_core.objectives.masked_diffusion import MaskedDiffusionObjective
from genai_core.training.step import run_forward, view_of

BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Bound:
    """An estimate of the bound of one text."""

    nats: float
    standard_error: float
    """Of `nats`; a little too large, because the samples are stratified."""

    tokens: int
    """Tokens that the bound is a sum over: all but those that are given."""


@torch.no_grad()
def diffusion_bound(
    model: Any,
    ids: Sequence[int],
    mask_id: int,
    *,
    offset: int = 0,
    block_length: int = 0,
    start: int = 1,
    samples: int = 128,
    seed: int = 0,
) -> Bound:
    """Return the bound of a text, given its beginning.

    Args:
        model: trained with `masked_diffusion` or `block_diffusion`, in eval mode.
        ids: (T,) of the text, at least two.
        mask_id: the mask.
        offset: where the model predicts: 0 at the token's own place, 1 at the one before it.
        block_length: of block diffusion; 0 = masked diffusion.
        start: tokens that are given, at least one.
        samples: draws, at least two.
        seed: of the draws.

    Raises:
        ValueError: there is nothing to predict, or too few samples to know an error.
    """
    if len(ids) < 2 or samples < 2:
        raise ValueError(f"a bound needs at least two tokens and two samples, not {len(ids)} and {samples}")
    if not 1 <= start < len(ids):
        raise ValueError(f"of {len(ids)} tokens at least the first and not all are given, not {start}")
    shift: Literal[0, 1] = 1 if offset else 0
    objective = (
        BlockDiffusionObjective(mask_id, block_length, shift)
        if block_length
        else MaskedDiffusionObjective(mask_id, shift)
    )
    one = Weighted(objective, 1.0)
    device = model.get_output_embeddings().weight.device
    row = torch.tensor([list(ids)], device=device)
    labels = row.clone()
    labels[:, :start] = IGNORE_INDEX
    noise = noise_for_step(seed, 0, samples)
    size = max(1, BATCH_TOKENS // len(ids))
    found: list[torch.Tensor] = []
    for first in range(0, samples, size):
        part = noise[first : first + size]
        count = len(part.noise)
        view = view_of(
            one,
            {
                "input_ids": row.expand(count, -1),
                "labels": labels.expand(count, -1),
                "position_ids": torch.arange(len(ids), device=device).expand(count, -1),
                "segment_ids": torch.arange(count, device=device)[:, None].expand(-1, len(ids)),
                "noise": torch.from_numpy(part.noise.copy()),
                "place": torch.from_numpy(part.place.copy()),
            },
            progress=1.0,
        )
        outputs = run_forward(model, [objective], view, "float32")
        found.append(objective.token_losses(outputs, view).sum(dim=1).double().cpu())
    draws = torch.cat(found)
    return Bound(float(draws.mean()), float(draws.std() / samples**0.5), len(ids) - start)
