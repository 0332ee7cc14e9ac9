"""Log-probabilities of the labels from hidden states, without ever holding (B * T, V) logits of a large vocabulary.

    logps[b, t] = z[labels[b, t]] - logsumexp(z),   z = W h[b, t - offset] + c     (the shift is here and nowhere else)

Only supervised positions are computed, CHUNK at a time. If all logits together are small they are kept for the backward
pass. Otherwise both gradients are made at once, for an upstream gradient of one, while a chunk's logits are there (Hsu et
al. 2024, "Liger kernel", arXiv 2410.10989, section 3.2); where the upstream gradient turns out to be one number for all
labels, as in a mean, they only need scaling. Where it does not, the logits are computed again.

    d logps_i / d z_i = onehot(label_i) - softmax(z_i)

Shapes: B rows, T tokens, D width, V vocabulary, N supervised positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_core.objectives.base import IGNORE_INDEX

CHUNK = 256  # 4 MB of float32 logits at V = 4,096, which stay in the cache; 50 MB at V = 49,152
KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class How:
    """How logits are made, and how many at a time."""

    matmul_dtype: torch.dtype
    wide: torch.dtype
    chunk: int
    kept_bytes: int
    excluded: int | None

    def logits(self, states: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the logits of some positions, (n, V)."""
        logits = (states @ matrix.T).to(self.wide)
        if bias is not None:
            logits += bias
        if self.excluded is not None:
            logits[:, self.excluded] = -torch.inf
        return logits


def label_logps(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    offset: int = 1,
    excluded: int | None = None,
    matmul_dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
    kept_bytes: int = KEPT_BYTES,
) -> Tensor:
    """Return the log-probability of every label, (B, T) in nats, 0 where there is no label; at least float32.

    Args:
        hidden: (B, T, D) final hidden states, as they are multiplied with `weight`.
        weight: (V, D) output embeddings.
        labels: (B, T) not shifted, IGNORE_INDEX where not trained on; the first `offset` columns are never looked at.
        bias: (V,) added to the logits; most decoders have none, BERT's head does.
        offset: 1 = a label is predicted from the position before it, 0 = from its own, where another token stands.
        excluded: a token id whose probability is zero, whatever its logit; never a label.
        matmul_dtype: the products with `weight` are made in it (bfloat16 under autocast); None: as `hidden`.
        chunk: positions at a time.
        kept_bytes: logits up to this size, all chunks together, are kept for the backward pass.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    source = predicting_positions(labels, offset)
    how = How(matmul_dtype or hidden.dtype, wide, chunk, kept_bytes, excluded)
    logps = _LabelLogps.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]), weight, bias, source, labels.reshape(-1)[source + offset], how
    )
    spread = torch.zeros(labels.numel(), dtype=wide, device=hidden.device)
    return spread.index_copy(0, source + offset, logps).reshape(labels.shape)


def predicting_positions(labels: Tensor, offset: int) -> Tensor:
    """Return where the labels are predicted, (N,) places in (B * T): `offset` before each.

    Args:
        labels: (B, T), IGNORE_INDEX where there is none; the first `offset` columns are never looked at.
        offset: 0 or 1.
    """
    found = (labels[:, offset:].reshape(-1) != IGNORE_INDEX).nonzero().squeeze(1)  # (N,) in (B, T - offset)
    return found + found // (labels.shape[1] - offset) * offset


class _LabelLogps(torch.autograd.Function):
    """(positions, D), (V, D), (V,) or None, (N,) where, (N,) which -> (N,) log-probabilities."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor, targets: Tensor, how: How
    ) -> Tensor:
        matrix = weight.to(how.matmul_dtype)
        chosen = hidden.index_select(0, source).to(how.matmul_dtype)  # (N, D)
        logps = torch.empty(len(source), dtype=how.wide, device=hidden.device)
        norms = torch.empty_like(logps)
        keeps = len(source) * len(weight) * how.wide.itemsize <= how.kept_bytes
        kept: list[Tensor] = []
        slopes = (
            None if keeps or not ctx.needs_input_grad[0] else Slopes(chosen, matrix, how, ctx.needs_input_grad[1:3])
        )
        for part in cut(len(source), how.chunk):
            logits = how.logits(chosen[part], matrix, bias)  # (chunk, V)
            norms[part] = logits.logsumexp(dim=-1)
            logps[part] = logits.gather(1, targets[part, None]).squeeze(1) - norms[part]
            if keeps:
                kept.append(logits)
            elif slopes is not None:
                slopes.add(part, logits, norms, targets, None)
        ctx.save_for_backward(chosen, weight, bias, source, targets, norms)
        ctx.kept, ctx.slopes, ctx.how, ctx.shape, ctx.dtype = kept, slopes, how, hidden.shape, hidden.dtype
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        chosen, weight, bias, source, targets, norms = ctx.saved_tensors
        how: How = ctx.how
        slopes: Slopes | None = ctx.slopes
        if slopes is not None and len(grad) and bool((grad == grad[0]).all()):
            slopes.scale(grad[0])
        else:
            matrix = weight.to(how.matmul_dtype)
            slopes = Slopes(chosen, matrix, how, ctx.needs_input_grad[1:3])
            for index, part in enumerate(cut(len(source), how.chunk)):
                # kept logits are overwritten: the graph is walked once, and the memory is the point
                logits = ctx.kept[index] if ctx.kept else how.logits(chosen[part], matrix, bias)
                slopes.add(part, logits, norms, targets, grad)
        ctx.kept, ctx.slopes = [], None
        grad_chosen, grad_weight, grad_bias = slopes.chosen, slopes.weight, slopes.bias
        grad_hidden = torch.zeros(ctx.shape, dtype=ctx.dtype, device=grad.device)
        grad_hidden.index_copy_(0, source, grad_chosen.to(ctx.dtype))  # positions are distinct: a copy, not a sum
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


class Slopes:
    """Gradients with respect to the chosen hidden states, (N, D), the matrix, (V, D), and the bias, (V,), by chunks."""

    def __init__(self, chosen: Tensor, matrix: Tensor, how: How, wanted: tuple[bool, bool]) -> None:
        self._states, self._matrix, self._how = chosen, matrix, how
        self.chosen = torch.empty(chosen.shape, dtype=how.wide, device=chosen.device)
        self.weight = torch.zeros_like(matrix, dtype=how.wide) if wanted[0] else None
        self.bias = torch.zeros_like(matrix[:, 0], dtype=how.wide) if wanted[1] else None

    def add(self, part: slice, logits: Tensor, norms: Tensor, targets: Tensor, grad: Tensor | None) -> None:
        """Add a chunk's share; its logits are overwritten. No upstream gradient = one for every label."""
        slope = logits.sub_(norms[part, None]).exp_()  # softmax
        if grad is None:
            slope.neg_().scatter_add_(1, targets[part, None], torch.ones_like(norms[part, None]))  # onehot - softmax
        else:
            slope.mul_(-grad[part, None]).scatter_add_(1, targets[part, None], grad[part, None])
        self.push(part, slope)

    def push(self, part: slice, slope: Tensor) -> None:
        """Add the share of a chunk, of which `slope` is the gradient with respect to its logits, (n, V)."""
        if self.bias is not None:
            self.bias += slope.sum(dim=0)
        slope = slope.to(self._how.matmul_dtype)
        self.chosen[part] = slope @ self._matrix
        if self.weight is None:
            return
        if self._how.matmul_dtype == self._how.wide:
            self.weight.addmm_(slope.T, self._states[part])
        else:
            self.weight += slope.T @ self._states[part]

    def scale(self, factor: Tensor) -> None:
        """Multiply all by the upstream gradient that all labels share."""
        self.chosen.mul_(factor)
        for slope in (self.weight, self.bias):
            if slope is not None:
                slope.mul_(factor)


def cut(length: int, chunk: int) -> list[slice]:
    """Return the chunks of so many positions."""
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]
