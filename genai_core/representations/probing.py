"""Probes: how much of a concept can be read from representations, by a linear model and by one that is not.

    linear       softmax(A x + b)
    non-linear   softmax(A tanh(B x + c) + b)
    bits         (best constant guess's loss - probe's loss) / ln 2, on the same texts: what the probe knows of a label

After LEACE no linear probe fitted on what the eraser was fitted on gains any bit there: that is guaranteed. Nothing is
guaranteed of a non-linear probe, nor of fresh data, where a linear one stays near the best constant guess, not exactly at it.

Both are fitted whole-batch in float64 on standardised features, with the penalty that does best when each half of the texts is
predicted from the other: of few texts with many features a weakly penalised probe is right more often than not, and yet surer
of itself than it should be. L-BFGS; no randomness but the seeded start of the hidden layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

PENALTIES = (1e-3, 1e-2, 1e-1)
"""Times half the squared weights, beside the mean loss; the first where a label is in one half only."""

ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe: logits of standardised features."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,)
    weights: tuple[Tensor, ...]
    """(d, k), (k,); with a hidden layer (d, h), (h,), (h, k), (k,)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits, (n, k), of features (n, d)."""
        return _logits((x - self.mean) * self.scale, self.weights)


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """A probe on some texts."""

    right: int
    n: int
    bits: float
    """Of the label, known to the probe beyond the best constant guess; negative where it misleads."""

    majority: float
    """Share of the most frequent label: the accuracy of the best constant guess."""


def fit_probe(x: Tensor, labels: Tensor, n_labels: int, *, hidden: int = 0, seed: int = 0) -> Probe:
    """Return a probe of labels from features, its penalty chosen on halves.

    Args:
        x: (n, d) features.
        labels: (n,) from 0.
        n_labels: how many there are.
        hidden: units of the hidden layer; 0 = a linear probe.
        seed: of the hidden layer's start and of the halves.
    """
    halves = [(x[half], labels[half]) for half in split_in_two(len(labels), seed)]
    penalty = PENALTIES[0]
    if all(set(own.tolist()) == set(labels.tolist()) for _, own in halves):
        losses = [
            sum(
                float(
                    cross_entropy(_fit(*own, n_labels, hidden, seed, each)(other.double()), expected, reduction="sum")
                )
                for own, (other, expected) in (halves, halves[::-1])
            )
            for each in PENALTIES
        ]
        penalty = PENALTIES[losses.index(min(losses))]
    return _fit(x, labels, n_labels, hidden, seed, penalty)


def _fit(x: Tensor, labels: Tensor, n_labels: int, hidden: int, seed: int, penalty: float) -> Probe:
    x = x.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    scale = torch.where(deviation > 1e-9 * (1 + mean.abs()), 1 / deviation.clamp_min(1e-300), 0.0)
    standard = (x - mean) * scale
    weights = _start(x.shape[1], n_labels, hidden, seed)
    optimizer = torch.optim.LBFGS(
        weights, max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        squares = torch.stack([weight.square().sum() for weight in weights if weight.ndim == 2]).sum()
        loss = cross_entropy(_logits(standard, tuple(weights)), labels) + penalty / 2 * squares
        loss.backward()
        return loss

    optimizer.step(closure)
    return Probe(mean, scale, tuple(weight.detach() for weight in weights))


def split_in_two(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of two random halves; every other row would be all of one label where labels alternate."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values


def score_probe(probe: Probe, x: Tensor, labels: Tensor, n_labels: int) -> ProbeScore:
    """Return how a probe does on some texts, beside the best constant guess on these very texts."""
    logits = probe(x.double())
    loss = float(cross_entropy(logits, labels))
    shares = torch.bincount(labels, minlength=n_labels).double() / len(labels)
    constant = float(-(shares * shares.clamp_min(1e-300).log()).sum())
    return ProbeScore(
        right=int((logits.argmax(dim=1) == labels).sum()),
        n=len(labels),
        bits=(constant - loss) / math.log(2),
        majority=float(shares.max()),
    )


def _start(d: int, k: int, hidden: int, seed: int) -> list[Tensor]:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, requires_grad=True)

    if not hidden:
        return [zeros(d, k), zeros(k)]
    source = torch.Generator().manual_seed(seed)
    first = torch.randn(d, hidden, generator=source, dtype=torch.float64) / math.sqrt(d)
    second = torch.randn(hidden, k, generator=source, dtype=torch.float64) / math.sqrt(hidden)
    return [first.requires_grad_(True), zeros(hidden), second.requires_grad_(True), zeros(k)]


def _logits(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    if len(weights) == 2:
        return x @ weights[0] + weights[1]
    return torch.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]
