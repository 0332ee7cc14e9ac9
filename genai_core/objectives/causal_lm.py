"""Next-token prediction: the negative log-likelihood of every token that is trained on.

    loss = sum_{b,t : labels[b,t] != -100}  -log p(labels[b,t] | tokens of the same segment before t)

Averaged by the engine over the supervised tokens of the whole step (token mean, objectives.md 0.1). Instruction tuning
is the same objective with another mask; the mask is made in `data/`.

Labels are *not* shifted (`labels[t] = input_ids[t]`); the shift is inside the head, which reads the log-probability of
`labels[t]` off the hidden state at t - 1. A segment's first position is never supervised, so nothing is predicted
across the border of two packed documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, LossTerms, Term


def causal_lm_loss(logps: Tensor, labels: Tensor) -> Tensor:
    """Return the summed negative log-likelihood, () in nats; 0, and connected to the graph, if nothing is supervised.

    Args:
        logps: (B, T) log-probability of each label in nats, anything finite where there is none.
        labels: (B, T) token ids, IGNORE_INDEX where not trained on.
    """
    return -(logps * (labels != IGNORE_INDEX)).sum()


class CausalLmObjective:
    """`causal_lm`, in nats per supervised token."""

    is_likelihood = True

    def token_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the negative log-likelihood of each supervised token, (B, T)."""
        return -outputs["logps"] * self.counted(batch)

    def counted(self, batch: Batch) -> Tensor:
        """Return the supervised tokens, (B, T) bool."""
        return batch["labels"] != IGNORE_INDEX

    def forwards(self) -> Sequence[Forward]:
        """Return one causal pass that gives log-probabilities."""
        return (Forward(outputs=frozenset({"logps"})),)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of supervised tokens."""
        return {"causal_lm": (batch["labels"] != IGNORE_INDEX).sum()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return the summed negative log-likelihood and its count."""
        loss_sum = causal_lm_loss(outputs["logps"], batch["labels"])
        return LossTerms({"causal_lm": Term(loss_sum, self.counts(batch)["causal_lm"])})
