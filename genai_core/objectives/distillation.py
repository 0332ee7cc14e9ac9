"""Distillation: the student learns the teacher's whole distribution at every token, not only the token that the text has.

    p = softmax(student / tau),  q = softmax(teacher / tau),  m = beta q + (1 - beta) p

    forward          D = KL(q || p) = sum q (log q - log p)               covers all that the teacher finds possible
    reverse          D = KL(p || q) = sum p (log p - log q)               keeps to what the teacher finds likely
    jensen_shannon   D = beta KL(q || m) + (1 - beta) KL(p || m)

    loss = sum_{b,t : labels[b,t] != -100}  tau^2 D[b,t]                  averaged over those tokens

Hinton et al. 2015 (arXiv 1503.02531, section 2: tau^2 keeps the gradient's size when tau changes), Agarwal et al. 2024 (GKD,
arXiv 2306.13649, equation 1 and its betas). Only the student has a gradient; with respect to its logits z it is

    forward          tau (p - q)
    reverse          tau p (log p - log q - D)
    jensen_shannon   tau (1 - beta) p (log p - log m - sum p (log p - log m))

The size of jensen_shannon goes to 0 with beta (D / beta -> KL(q || p)) and with 1 - beta: a learning rate that was found at one
beta is none for another. So the two limits are kinds of their own, and not betas of 0 and 1.

Teacher and student may differ in all but the tokenizer. Where one has more rows of output embeddings than the other (rows that
stand for no token, for the sake of round sizes), both distributions are over the rows that both have.
Shapes: n tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, LossTerms, Term


@dataclass(frozen=True, slots=True)
class Divergence:
    """tau^2 D of two distributions, token by token, and its gradient."""

    kind: Literal["forward", "reverse", "jensen_shannon"]
    temperature: float = 1.0
    beta: float = 0.5
    """Of jensen_shannon: the teacher's share of the mixture, above 0 and below 1."""

    def __call__(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return each token's divergence, (n,) in nats, and its gradient with respect to the student's logits, (n, V).

        Args:
            student: (n, V) logits.
            teacher: (n, V) logits.
        """
        tau = self.temperature
        log_p = (student / tau).log_softmax(dim=-1)
        log_q = (teacher / tau).log_softmax(dim=-1)
        p = log_p.exp()
        match self.kind:
            case "forward":
                q = log_q.exp()
                divergence = (q * (log_q - log_p)).sum(dim=-1)
                slope = p - q
            case "reverse":
                ratio = log_p - log_q
                divergence = (p * ratio).sum(dim=-1)
                slope = p * (ratio - divergence[:, None])
            case "jensen_shannon":
                beta = self.beta
                log_m = torch.logaddexp(log_q + math.log(beta), log_p + math.log1p(-beta))
                ratio = log_p - log_m
                to_mixture = (p * ratio).sum(dim=-1)
                divergence = beta * (log_q.exp() * (log_q - log_m)).sum(dim=-1) + (1 - beta) * to_mixture
                slope = (1 - beta) * p * (ratio - to_mixture[:, None])
        return tau**2 * divergence, tau * slope


class DistillationObjective:
    """`distillation`, in nats per supervised token; 0 where student and teacher agree."""

    def __init__(self, divergence: Divergence) -> None:
        self._divergence = divergence

    def forwards(self) -> Sequence[Forward]:
        """Return one causal pass of the student, and one of the teacher, whose distributions are compared with it."""
        return (
            Forward(outputs=frozenset({"hidden"})),
            Forward(outputs=frozenset({"compared"}), model="teacher", compare=self._divergence),
        )

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of supervised tokens."""
        return {"distillation": (batch["labels"] != IGNORE_INDEX).sum()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return the summed divergence and its count."""
        return LossTerms({"distillation": Term(outputs["compared"].sum(), self.counts(batch)["distillation"])})
