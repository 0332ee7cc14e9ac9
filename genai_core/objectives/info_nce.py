"""InfoNCE between the two halves of every row: each half finds its own partner among all rows of the step.

    s_ij  = cos(a_i, p_j) / temperature
    loss  = sum_i  -log( exp(s_ii) / sum_j exp(s_ij) )

van den Oord et al. 2018, arXiv 1807.03748, equation 4, with cosine similarity and in-batch negatives.
a_i and p_i are the means of the final hidden states over the first and the second half of row i.

This objective couples the rows of a step: a row's loss depends on all others. So it is two pure functions, `represent`
and `couple`, and the engine runs them with cached gradients (Gao et al. 2021, arXiv 2101.06983): the candidates of a
row are all rows of the optimizer step, whatever the micro-batches and ranks.

Choices: one direction only (first half to second), as GritLM has it; pooled and compared in float32 or wider, because
a bfloat16 cosine divided by a temperature of 0.05 keeps two digits. It is the small second proof of the contract, not a
recipe for embeddings: halves of a packed row may come from different documents.
Shapes: B rows of a micro-batch, M rows of the step, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genai_core.objectives.base import Batch, Forward, LossTerms, Mean, Term


def pool_halves(hidden: Tensor) -> Tensor:
    """Return the mean of each row's first and second half, (B, 2, D), at least float32.

    Args:
        hidden: (B, T, D) final hidden states, T at least 2; an odd T gives the longer half to the second.
    """
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    middle = hidden.shape[1] // 2
    return torch.stack([wide[:, :middle].mean(dim=1), wide[:, middle:].mean(dim=1)], dim=1)  # (B, 2, D)


def info_nce_loss(anchors: Tensor, positives: Tensor, *, temperature: float) -> Tensor:
    """Return the loss of each anchor, (M,) in nats; ln M where all similarities are equal.

    Args:
        anchors: (M, D).
        positives: (M, D); row i belongs to anchor i, the others are its negatives.
        temperature: similarities are divided by it; smaller looks harder at the nearest negatives.
    """
    similarity = F.normalize(anchors, dim=-1) @ F.normalize(positives, dim=-1).T / temperature  # (M, M)
    return -similarity.log_softmax(dim=-1).diagonal()  # (M,)


class InfoNceObjective:
    """`info_nce`, in nats per row."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def forwards(self) -> Sequence[Forward]:
        """Return one causal pass that gives hidden states."""
        return (Forward(outputs=frozenset({"hidden"})),)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of rows."""
        return {"info_nce": torch.tensor(batch["input_ids"].shape[0])}

    def represent(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return both halves of every row, (B, 2, D)."""
        return pool_halves(outputs["hidden"])

    def couple(self, representations: Tensor) -> LossTerms:
        """Return the summed loss over all rows, and how often a row's own half was the nearest."""
        anchors, positives = representations.unbind(dim=1)
        losses = info_nce_loss(anchors, positives, temperature=self._temperature)
        rows = torch.tensor(len(losses))
        with torch.no_grad():
            nearest = (F.normalize(anchors, dim=-1) @ F.normalize(positives, dim=-1).T).argmax(dim=-1)
            hits = (nearest == torch.arange(len(losses), device=nearest.device)).sum()
        return LossTerms({"info_nce": Term(losses.sum(), rows)}, {"info_nce_accuracy": Mean(hits, rows)})
