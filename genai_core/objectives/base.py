"""The contract between an objective and the engine: tensors in, sums and counts out.

    gradient = d/dw  sum_i weight_i * (sum over the whole step of loss_sum_i) / (sum over the whole step of count_i)

An objective never divides. Only the engine does, after the counts have been added up over micro-batches and ranks; so
neither accumulation nor sharding can change the gradient, also with several terms of different units in one step
(objectives.md 0.1; the mean of means is the most common silent error of the field).

Two kinds:
- `RowObjective`: the loss of a row depends on that row alone. `loss(outputs, batch)` is called per micro-batch.
  It may be `Corrupting` too: it shows the model other rows than those of the data, by the batch's noise.
- `CoupledObjective`: rows are compared with each other (in-batch negatives). It is two pure functions, `represent`
  (per micro-batch) and `loss` (over the representations of the whole step); the engine runs them with cached
  gradients, so the split into micro-batches is never seen by the mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

IGNORE_INDEX = -100
Batch = Mapping[str, Tensor]
"""input_ids, labels, position_ids, segment_ids: each (B, T), integers; see data/collate.

In training also noise (B,), a random integer for each visit of a row, and place (B,), where the row stands among those of
the step, in [0, 1): one value in each of R cells for R rows, so that what is drawn from it is spread evenly. Where datasets
are mixed also source (B,), the number of each row's dataset, whose rows have places among themselves.
"""


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of the loss."""

    loss_sum: Tensor
    """() summed over `count` units, differentiable."""

    count: Tensor
    """() what the term is averaged over: tokens, sequences, pairs."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric that is averaged over the step; it carries its own denominator."""

    total: Tensor
    count: Tensor


@dataclass(frozen=True, slots=True)
class Max:
    """A metric of which the largest value of the step is kept."""

    value: Tensor


@dataclass(frozen=True, slots=True)
class LossTerms:
    """What an objective returns: its terms by name, and figures that are only looked at."""

    terms: Mapping[str, Term]
    metrics: Mapping[str, Mean | Max] = field(default_factory=dict)


Compare = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(n, V) logits of the policy and (n, V) of another model at the same tokens -> a number for each token, (n,), and its gradient
with respect to the policy's logits, (n, V)."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One pass through a model that an objective needs; the engine runs it.

    Outputs by name: 'hidden' is (B, T, D); 'logps' is (B, T) in nats, `logps[b, t]` the log-probability of the label
    at t, and 0 where `labels` is IGNORE_INDEX; 'row_logits' is (B, C) of the head that tells classes of rows apart; 'compared'
    is (B, T), what `compare` makes of the policy's distribution and that of this pass's model at the label of t, and 0 where
    there is none.
    """

    outputs: frozenset[Literal["hidden", "logps", "row_logits", "compared"]]
    model: Literal["policy", "teacher"] = "policy"
    """Whose pass: that of the model that is trained, or of a frozen one, which has no gradient and gives 'compared' only."""

    attention: Literal["causal", "bidirectional", "given"] = "causal"
    """What a token sees of its own segment: what is before it, all, or what the batch's `seen` (B, T, T) says."""

    offset: Literal[0, 1] = 1
    """The log-probability of a label at t is read off the hidden state at t - offset."""

    excluded: int | None = None
    """A token id that is never predicted: it has no share of the probability."""

    compare: Compare | None = None
    """How 'compared' comes about, without both models' logits of a whole batch ever being there."""


class RowObjective(Protocol):
    """An objective whose rows do not know each other."""

    def forwards(self) -> Sequence[Forward]:
        """Return the passes it needs."""
        ...

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return each term's normaliser, from the batch alone, without a forward pass."""
        ...

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return the terms of one micro-batch. Pure."""
        ...


class TokenObjective:
    """A row objective whose loss is a sum over tokens, so that it can be measured on held-out text.

    Here it is the negative log-likelihood of every token with a label; what weighs or counts otherwise says so.
    """

    name: str
    """Of its one term."""

    is_likelihood: bool
    """Whether the sum over a text bounds its negative log-likelihood from above (or is it): then bits per byte mean it."""

    def token_losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each token, (B, T) in nats, 0 where it has none."""
        return -outputs["logps"] * (batch["labels"] != IGNORE_INDEX)

    def counted(self, batch: Batch) -> Tensor:
        """Return the tokens that the mean is over, (B, T) bool."""
        return batch["labels"] != IGNORE_INDEX

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of tokens that the mean is over."""
        return {self.name: self.counted(batch).sum()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return the summed loss and its count."""
        return LossTerms({self.name: Term(self.token_losses(outputs, batch).sum(), self.counts(batch)[self.name])})


@runtime_checkable
class Corrupting(Protocol):
    """An objective that changes what the model is shown."""

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the rows as the model sees them, and the labels that it is to find. Pure: its noise is the batch's.

        Args:
            batch: with noise and place.
            progress: of the training, in [0, 1).
        """
        ...


@runtime_checkable
class CoupledObjective(Protocol):
    """An objective that compares the rows of the whole step with each other."""

    def forwards(self) -> Sequence[Forward]:
        """Return the passes it needs."""
        ...

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return each term's normaliser, from the batch alone, without a forward pass."""
        ...

    def represent(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return what the rows of a micro-batch are compared by, (B, ...). Pure."""
        ...

    def couple(self, representations: Tensor) -> LossTerms:
        """Return the terms of all rows of the step together, from their representations (M, ...). Pure."""
        ...


Objective = RowObjective | CoupledObjective


@dataclass(frozen=True, slots=True)
class Weighted:
    """An objective and its weight in the total loss."""

    objective: Objective
    weight: float
    rows: tuple[float, float] = (0.0, 1.0)
    """The share of a step's rows that it is computed on: those with place in [low, high)."""

    phase: tuple[float, float] = (0.0, 1.0)
    """The part of the training in which it counts: progress in [begin, end)."""

    dataset: int | None = None
    """The rows of one dataset, by their `source`; None = all rows."""

    suffix: str = ""
    """Behind the names of its terms, where an objective is there twice."""

    def is_active(self, progress: float) -> bool:
        """Return whether it counts at this point of the training."""
        return self.phase[0] <= progress < self.phase[1]
