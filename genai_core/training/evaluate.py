"""Held-out loss while training, in nats per supervised token and in bits per byte.

    bits per byte = sum of nll over tokens that stand for text / (ln 2 * bytes of those tokens)

Special tokens (document ends, turn marks) count in the loss, but not in bits per byte, because they are no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.data.collate import IGNORE_INDEX, collate
from genai_core.models.backbone import head_weight
from genai_core.training.head import label_logps
from genai_core.training.parallel import Group
from genai_core.training.rows import Rows, to_device
from genai_core.training.step import Precision, states_at


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
    bits_per_byte: float
    tokens: int


@torch.no_grad()
def measure_heldout(
    model: Any,
    held_out: HeldOut,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_rows: int,
    precision: Precision,
    group: Group,
) -> HeldOutLoss:
    """Return the loss on rows of the held-out text; the same on every rank.

    Args:
        model: left in the mode it was in.
        held_out: rows and the table of token lengths.
        indices: which rows.
        batch_rows: rows in one pass.
        precision: of the matrix products.
        group: the rows are shared over its ranks.
    """
    was_training = model.training
    model.eval()
    token_bytes = held_out.token_bytes.to(group.device)
    sums = torch.zeros(4, dtype=torch.float64, device=group.device)  # nll, tokens, nll of text, bytes
    own = group.share(indices)
    for start in range(0, len(own), batch_rows):
        batch = to_device(collate(held_out.rows.take(own[start : start + batch_rows])), group.device)
        hidden = states_at(model, precision, batch["input_ids"], batch["position_ids"])
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        nll = -label_logps(hidden, head_weight(model), batch["labels"], matmul_dtype=dtype).double()
        supervised = batch["labels"] != IGNORE_INDEX
        sizes = token_bytes[batch["labels"].clamp_min(0)] * supervised
        sums += torch.stack([nll.sum(), supervised.sum(), (nll * (sizes > 0)).sum(), sizes.sum()])
    model.train(was_training)
    group.sum_([sums])
    nats, tokens, text_nats, text_bytes = sums.tolist()
    return HeldOutLoss(nats / max(1.0, tokens), text_nats / math.log(2) / max(1.0, text_bytes), int(tokens))
