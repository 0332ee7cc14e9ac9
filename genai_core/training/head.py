"""Log-probabilities of the labels from hidden states, without ever holding (B * T, V) logits of a large vocabulary.

    logps[b, t] = z[labels[b, t]] - logsumexp(z),   z = W h[b, t - 1]        (the shift is here and nowhere else)

Only supervised positions are computed, CHUNK at a time. In the backward pass a chunk's logits are computed again (one
more matrix product), unless all of them together are small: then they are kept.

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
class _How:
    matmul_dtype: torch.dtype
    wide: torch.dtype
    chunk: int
    kept_bytes: int


def label_logps(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    matmul_dtype: torch.dtype | None = None,
    chunk: int = CHUNK,
    kept_bytes: int = KEPT_BYTES,
) -> Tensor:
    """Return the log-probability of every label, (B, T) in nats, 0 where there is no label; at least float32.

    Args:
        hidden: (B, T, D) final hidden states.
        weight: (V, D) output embeddings.
        labels: (B, T) not shifted, IGNORE_INDEX where not trained on; the first column is never looked at.
        matmul_dtype: the products with `weight` are made in it (bfloat16 under autocast); None: as `hidden`.
        chunk: positions at a time.
        kept_bytes: logits up to this size, all chunks together, are kept for the backward pass.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    flat = labels[:, 1:].reshape(-1)
    found = (flat != IGNORE_INDEX).nonzero().squeeze(1)  # (N,) in (B, T - 1)
    source = found + found // (labels.shape[1] - 1)  # (N,) in (B, T): the position that predicts
    how = _How(matmul_dtype or hidden.dtype, wide, chunk, kept_bytes)
    logps = _LabelLogps.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]), weight, source, flat[found], how
    )
    spread = torch.zeros(labels.numel(), dtype=wide, device=hidden.device)
    return spread.index_copy(0, source + 1, logps).reshape(labels.shape)


class _LabelLogps(torch.autograd.Function):
    """(positions, D), (V, D), (N,) where, (N,) which -> (N,) log-probabilities."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, source: Tensor, targets: Tensor, how: _How) -> Tensor:
        matrix = weight.to(how.matmul_dtype)
        chosen = hidden.index_select(0, source).to(how.matmul_dtype)  # (N, D)
        logps = torch.empty(len(source), dtype=how.wide, device=hidden.device)
        norms = torch.empty_like(logps)
        keeps = len(source) * len(weight) * how.wide.itemsize <= how.kept_bytes
        kept: list[Tensor] = []
        for part in _parts(len(source), how.chunk):
            logits = (chosen[part] @ matrix.T).to(how.wide)  # (chunk, V)
            norms[part] = logits.logsumexp(dim=-1)
            logps[part] = logits.gather(1, targets[part, None]).squeeze(1) - norms[part]
            if keeps:
                kept.append(logits)
        ctx.save_for_backward(chosen, weight, source, targets, norms)
        ctx.kept, ctx.how, ctx.shape, ctx.dtype = kept, how, hidden.shape, hidden.dtype
        return logps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        chosen, weight, source, targets, norms = ctx.saved_tensors
        how: _How = ctx.how
        matrix = weight.to(how.matmul_dtype)
        grad_chosen = torch.empty(chosen.shape, dtype=how.wide, device=grad.device)
        grad_weight = torch.zeros_like(weight, dtype=how.wide) if ctx.needs_input_grad[1] else None
        for index, part in enumerate(_parts(len(source), how.chunk)):
            # kept logits are overwritten: the graph is walked once, and the memory is the point
            logits = ctx.kept[index] if ctx.kept else (chosen[part] @ matrix.T).to(how.wide)
            slope = logits.sub_(norms[part, None]).exp_().mul_(-grad[part, None])  # -g softmax
            slope.scatter_add_(1, targets[part, None], grad[part, None])  # + g onehot
            slope = slope.to(how.matmul_dtype)
            grad_chosen[part] = slope @ matrix
            if grad_weight is not None and how.matmul_dtype == how.wide:
                grad_weight.addmm_(slope.T, chosen[part])
            elif grad_weight is not None:
                grad_weight += slope.T @ chosen[part]
        ctx.kept = []
        grad_hidden = torch.zeros(ctx.shape, dtype=ctx.dtype, device=grad.device)
        grad_hidden.index_copy_(0, source, grad_chosen.to(ctx.dtype))  # positions are distinct: a copy, not a sum
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _parts(length: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]
