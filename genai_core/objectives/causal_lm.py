"""Next-token prediction: the negative log-likelihood of every token that is trained on.

    loss = sum_{b,t : labels[b,t] != -100}  -log p(labels[b,t] | tokens of the same segment before t)

Averaged by the engine over the supervised tokens of the whole step (token mean, objectives.md 0.1). Instruction tuning
is the same objective with another mask; the mask is made in `data/`.

Labels are *not* shifted (`labels[t] = input_ids[t]`); the shift is inside the head, which reads the log-probability of
`labels[t]` off the hidden state at t - 1. A segment's first position is never supervised, so nothing is predicted
across the border of two packed documents.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from genai_core.objectives.base import IGNORE_INDEX, Forward, TokenObjective


def causal_lm_loss(logps: Tensor, labels: Tensor) -> Tensor:
    """Return the summed negative log-likelihood, () in nats; 0, and connected to the graph, if nothing is supervised.

    Args:
        logps: (B, T) log-probability of each label in nats, anything finite where there is none.
        labels: (B, T) token ids, IGNORE_INDEX where not trained on.
    """
    return -(logps * (labels != IGNORE_INDEX)).sum()


class CausalLmObjective(TokenObjective):
    """`causal_lm`, in nats per supervised token."""

    name = "causal_lm"
    is_likelihood = True

    def forwards(self) -> Sequence[Forward]:
        """Return one causal pass that gives log-probabilities."""
        return (Forward(outputs=frozenset({"logps"})),)
