"""A transformers model as what fills in masks asks it: logits of some positions, given both sides.

A model that reads predictions one place earlier (`offset` 1) says nothing of a row's first token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genai_core.generation.unmasking import Predict
from genai_core.models.backbone import head_logits, head_weight, hidden_states

BATCH_TOKENS = 8192


def masked_predictor(model: Any, mask_id: int, lengths: Tensor, *, offset: int = 0) -> Predict:
    """Return how a model is asked about masks.

    Args:
        model: trained with a masked objective, in eval mode.
        mask_id: is never predicted.
        lengths: (B,) tokens of each row; what comes after them is padding, which no token sees.
        offset: where the model predicts: 0 at the token's own place, 1 at the one before it.
    """
    weight = head_weight(model)

    @torch.inference_mode()
    def predict(ids: Tensor, asked: Tensor) -> Tensor:
        width = ids.shape[1]
        rows = max(1, BATCH_TOKENS // width)
        found: list[Tensor] = []
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            here = asked[part]
            if not bool(here.any()):
                continue
            places = torch.arange(width, device=ids.device)
            inside = places < lengths[part].to(ids.device)[:, None]  # (b, T)
            seen = inside[:, None, :] | torch.eye(width, dtype=torch.bool, device=ids.device)
            hidden = hidden_states(model, ids[part], places.expand(len(here), -1), seen)
            row, at = here.nonzero(as_tuple=True)
            logits = head_logits(model, hidden[row, (at - offset).clamp_min(0)]).float()
            logits[:, mask_id] = -torch.inf
            found.append(logits)
        return torch.cat(found) if found else weight.new_zeros((0, len(weight)))

    return predict
