"""Two models' distributions at every label, reduced to a number for each, without ever holding the logits of a batch.

    compared[b, t] = D(W h[b, t - offset], W' h'[b, t - offset])        h, W the policy's; h', W' the other model's

CHUNK positions at a time: both models' logits, the number and its gradient with respect to the policy's logits, which goes
straight into the gradients of h and W, for an upstream gradient of one (as in training/head.py). Where the upstream gradient is
one number for all labels, as in a mean, they only need scaling; else the chunks are computed again. Held at once are six
matrices of CHUNK x V: 300 MB at V = 49,152 and float32, whatever the batch.

The other model has no gradient. Its width may differ; of different numbers of output rows the common ones count.
Shapes: B rows, T tokens, D and D' widths, V vocabulary, N supervised positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genai_core.objectives.base import Compare
from genai_core.training.head import CHUNK, How, Slopes, cut, predicting_positions


def compare_heads(
    hidden: Tensor,
    weight: Tensor,
    other_hidden: Tensor,
    other_weight: Tensor,
    labels: Tensor,
    compare: Compare,
    *,
    offset: int = 1,
    matmul_dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Return what `compare` makes of both distributions at every label, (B, T), 0 where there is no label; at least float32.

    Args:
        hidden: (B, T, D) final hidden states of the policy.
        weight: (V, D) its output embeddings.
        other_hidden: (B, T, D') of the other model.
        other_weight: (V', D') its output embeddings.
        labels: (B, T) not shifted, IGNORE_INDEX where not trained on.
        compare: the number, and its gradient with respect to the policy's logits.
        offset: as in `label_logps`.
        matmul_dtype: the products with the output embeddings are made in it; None: as the hidden states.
        chunk: positions at a time.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    rows = min(len(weight), len(other_weight))
    source = predicting_positions(labels, offset)
    how = How(matmul_dtype or hidden.dtype, wide, chunk, 0, None)
    other = How(matmul_dtype or other_hidden.dtype, wide, chunk, 0, None)
    found = _Compared.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]),
        _first(weight, rows),
        other_hidden.detach().reshape(-1, other_hidden.shape[-1]),
        _first(other_weight.detach(), rows),
        source,
        compare,
        how,
        other,
    )
    spread = torch.zeros(labels.numel(), dtype=wide, device=hidden.device)
    return spread.index_copy(0, source + offset, found).reshape(labels.shape)


class _Compared(torch.autograd.Function):
    """(positions, D), (V, D), (positions, D'), (V, D'), (N,) where -> (N,) numbers."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        other_hidden: Tensor,
        other_weight: Tensor,
        source: Tensor,
        compare: Compare,
        how: How,
        other: How,
    ) -> Tensor:
        chosen = hidden.index_select(0, source).to(how.matmul_dtype)  # (N, D)
        other_chosen = other_hidden.index_select(0, source).to(other.matmul_dtype)  # (N, D')
        slopes = _slopes(chosen, weight, how, ctx) if ctx.needs_input_grad[0] else None
        found = torch.empty(len(source), dtype=how.wide, device=hidden.device)
        for part, value, slope in _walk(chosen, weight, other_chosen, other_weight, compare, how, other):
            found[part] = value
            if slopes is not None:
                slopes.push(part, slope)
        ctx.save_for_backward(chosen, weight, other_chosen, other_weight, source)
        ctx.slopes, ctx.shape, ctx.dtype = slopes, hidden.shape, hidden.dtype
        ctx.compare, ctx.how, ctx.other = compare, how, other
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        chosen, weight, other_chosen, other_weight, source = ctx.saved_tensors
        slopes: Slopes | None = ctx.slopes
        if slopes is not None and len(grad) and bool((grad == grad[0]).all()):
            slopes.scale(grad[0])
        else:
            slopes = _slopes(chosen, weight, ctx.how, ctx)
            walk = _walk(chosen, weight, other_chosen, other_weight, ctx.compare, ctx.how, ctx.other)
            for part, _, slope in walk:
                slopes.push(part, slope * grad[part, None])
        ctx.slopes = None
        grad_hidden = torch.zeros(ctx.shape, dtype=ctx.dtype, device=grad.device)
        grad_hidden.index_copy_(0, source, slopes.chosen.to(ctx.dtype))  # positions are distinct: a copy, not a sum
        grad_weight = None if slopes.weight is None else slopes.weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None, None, None


def _first(weight: Tensor, rows: int) -> Tensor:
    return weight if rows == len(weight) else weight[:rows]


def _slopes(chosen: Tensor, weight: Tensor, how: How, ctx: Any) -> Slopes:
    return Slopes(chosen, weight.to(how.matmul_dtype), how, (ctx.needs_input_grad[1], False))


def _walk(
    chosen: Tensor,
    weight: Tensor,
    other_chosen: Tensor,
    other_weight: Tensor,
    compare: Compare,
    how: How,
    other: How,
) -> Any:
    """Yield each chunk, its numbers, (n,), and their gradients with respect to the policy's logits, (n, V)."""
    matrix, other_matrix = weight.to(how.matmul_dtype), other_weight.to(other.matmul_dtype)
    for part in cut(len(chosen), how.chunk):
        yield part, *compare(how.logits(chosen[part], matrix), other.logits(other_chosen[part], other_matrix))
