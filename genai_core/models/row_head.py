"""A head that tells classes of rows apart, read off the first token's final hidden state.

    logits = U tanh(P h_0 + p) + u

BERT's pooler and its classifier of sentence pairs (Devlin et al. 2019, arXiv 1810.04805, section 3.1). The head is part of
the model while it is trained, so optimizers and checkpoints know it; it is published beside the model, in a file of its own,
because plain transformers would not know what to do with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.errors import ModelError
from genai_core.models.backbone import causal_model, head_weight

FILE = "row_head.safetensors"
INIT_STD = 0.02
_ATTRIBUTE = "row_head"


class RowHead(nn.Module):
    """(B, D) states of the rows' first tokens -> (B, C) logits."""

    def __init__(self, d_model: int, classes: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(d_model, d_model)
        self.classifier = nn.Linear(d_model, classes)
        for layer in (self.pooler, self.classifier):
            nn.init.normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits of each row."""
        logits: Tensor = self.classifier(torch.tanh(self.pooler(states.to(self.pooler.weight.dtype))))
        return logits


def add_row_head(model: Any, classes: int, *, seed: int, folder: Path | None = None) -> None:
    """Give a model, adapted or not, a head of rows that is trained with it.

    Args:
        model: changed in place.
        classes: C.
        seed: of the weights.
        folder: of the model it was loaded from; if a head of this size lies there, training goes on with it.
    """
    inner, weight = causal_model(model), head_weight(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = RowHead(inner.config.hidden_size, classes)
    if folder is not None and (folder / FILE).is_file():
        saved = load_row_head(folder)
        if len(saved.classifier.bias) == classes:
            head = saved
    setattr(inner, _ATTRIBUTE, head.to(device=weight.device, dtype=weight.dtype))


def take_row_head(model: Any) -> RowHead | None:
    """Take the head off a model and return it; None if there is none."""
    inner = causal_model(model)
    head: RowHead | None = getattr(inner, _ATTRIBUTE, None)
    if head is not None:
        delattr(inner, _ATTRIBUTE)
    return head


def save_row_head(head: RowHead, folder: Path) -> None:
    """Write the head beside its model."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}, folder / FILE)


def load_row_head(folder: Path) -> RowHead:
    """Return the head that lies beside a model."""
    from safetensors.torch import load_file

    saved = load_file(folder / FILE)
    classes, d_model = saved["classifier.weight"].shape
    with torch.random.fork_rng(devices=[]):
        head = RowHead(d_model, classes).to(saved["classifier.weight"].dtype)
    head.load_state_dict(saved)
    return head


def row_logits(model: Any, hidden: Tensor) -> Tensor:
    """Return the logits of the rows' classes, (B, C), at least float32.

    Args:
        model: with a head of rows.
        hidden: (B, T, D) final hidden states.

    Raises:
        ModelError: it has none.
    """
    head: RowHead | None = getattr(causal_model(model), _ATTRIBUTE, None)
    if head is None:
        raise ModelError(
            "The objective tells classes of rows apart, but the model has no head for that (add_row_head)."
        )
    logits: Tensor = head(hidden[:, 0])
    return logits


def count_row_classes(model: Any) -> int:
    """Return how many classes of rows a model's head tells apart, 0 if it has none."""
    head: RowHead | None = getattr(causal_model(model), _ATTRIBUTE, None)
    return 0 if head is None else head.classifier.out_features
