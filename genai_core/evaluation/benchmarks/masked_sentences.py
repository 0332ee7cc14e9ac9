"""How likely a masked model finds single tokens of a text, each hidden alone and given all others.

    log p(x_i | x without i),  i in places

Salazar et al. 2020 (arXiv 1910.14659). For encoders of transformers with their own head and positions; for the models
trained here, see `pseudo_likelihood`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.inference_mode()
def hidden_logps(model: Any, ids: Sequence[int], places: Sequence[int], mask_id: int, batch_rows: int = 32) -> Tensor:
    """Return the log-probability of the token at each place, (len(places),) float64 nats.

    Args:
        model: a masked language model with its head.
        ids: of the text, marks included.
        places: which tokens are asked about.
        mask_id: what hides a token.
        batch_rows: copies of the text in one pass.
    """
    row = torch.tensor(ids, device=model.device)
    found = [torch.zeros(0, dtype=torch.float64)]
    for start in range(0, len(places), batch_rows):
        part = torch.tensor(places[start : start + batch_rows], device=model.device)
        copies = row.repeat(len(part), 1).scatter(1, part.unsqueeze(1), mask_id)
        logits = model(input_ids=copies).logits[torch.arange(len(part)), part]
        found.append(logits.double().log_softmax(dim=-1).gather(1, row[part].unsqueeze(1))[:, 0].cpu())
    return torch.cat(found)
