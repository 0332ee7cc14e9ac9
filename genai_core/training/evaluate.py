"""Held-out loss while training, in nats per supervised token and in bits per byte.

    bits per byte = sum of nll over tokens that stand for text / (ln 2 * bytes of those tokens)

Special tokens (document ends, turn marks) count in the loss, but not in bits per byte, because they are no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.data.order import noise_of_rows
from genai_core.objectives.base import TokenObjective, Weighted
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.training.context import own_labels
from genai_core.training.parallel import Group
from genai_core.training.pipeline import stage_of
from genai_core.training.rows import Rows, take_batch
from genai_core.training.step import Precision, run_forward, view_of


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a run is measured on."""

    rows: Rows
    token_bytes: Tensor
    """(V,) bytes of each token."""


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The measurement."""

    loss_nats: float
    bits_per_byte: float | None
    """None where the objective's loss is no likelihood of the text."""

    tokens: int


@torch.no_grad()
def measure_heldout(
    model: Any,
    objectives: Sequence[Weighted],
    held_out: HeldOut,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_rows: int,
    precision: Precision,
    group: Group,
) -> HeldOutLoss:
    """Return the loss on rows of the held-out text; the same on every rank.

    Of several objectives the first that is a likelihood is measured, on all rows; one that hides tokens hides the same
    ones at every measurement, at the rate that training ends with.

    Args:
        model: left in the mode it was in.
        objectives: of the run.
        held_out: rows and the table of token lengths.
        indices: which rows.
        batch_rows: rows in one pass.
        precision: of the matrix products.
        group: the rows are shared over its ranks.
    """
    objective, stage = choose_measured(objectives), stage_of(model)
    was_training = model.training
    model.eval()
    token_bytes = held_out.token_bytes.to(group.device)
    sums = torch.zeros(4, dtype=torch.float64, device=group.device)  # nll, tokens, nll of text, bytes
    own = group.rows.share(indices)
    # cut weights: every rank makes as many passes as the one with most rows
    most = -(-len(indices) // group.rows.world_size) if group.shards else len(own)
    for start in range(0, most, batch_rows):
        part = own[start : start + batch_rows]
        blank = not len(part)
        if blank:
            part = indices[:1]
        batch = own_labels(take_batch(held_out.rows, part, noise_of_rows(part), group.device), group)
        view = view_of(Weighted(objective, 1.0), batch, progress=1.0)
        run = partial(run_forward, model, [objective], view, precision)
        outputs = run() if stage is None else stage.pass_on(view["input_ids"].shape, run)
        if blank or outputs is None:
            continue
        nll = objective.token_losses(outputs, view).double()
        counted = objective.counted(view)
        sizes = token_bytes[batch["labels"].clamp_min(0)] * counted
        sums += torch.stack([nll.sum(), counted.sum(), (nll * (sizes > 0)).sum(), sizes.sum()])
    model.train(was_training)
    (group.sums if stage is None else group).sum_([sums])  # in a pipeline the last stages alone have any
    nats, tokens, text_nats, text_bytes = sums.tolist()
    bits = text_nats / math.log(2) / max(1.0, text_bytes) if objective.is_likelihood else None
    return HeldOutLoss(nats / max(1.0, tokens), bits, int(tokens))


def choose_measured(objectives: Sequence[Weighted]) -> Any:
    """Return the objective that held-out text is measured with: plain cross-entropy unless the run has a measure."""
    found = [one.objective for one in objectives if isinstance(one.objective, TokenObjective)]
    return next((one for one in found if one.is_likelihood), found[0] if found else CausalLmObjective())
