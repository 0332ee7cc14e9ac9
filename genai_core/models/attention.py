"""Attention as two matrix products and a softmax, for short rows on a processor under bfloat16.

    softmax(q k^T / sqrt(d) + mask) v         scores and weights kept, (B, H, T, T)

torch's flash attention for CPUs computes in float32 whatever it is given. Two bfloat16 products with the scores between
them are three times as fast where the processor multiplies bfloat16: 4.2 against 12.7 ms forward and backward for 8 rows of
256 tokens, 4 heads of 64. The softmax is computed in float32 inside; what rounds to bfloat16 are the scores (2^-9 relative),
as in any mixed-precision training before flash attention. The scores cost memory as the square of the row, so long rows
keep flash attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genai_core.models.backbone import causal_model

NAME = "genai_products"
LONGEST_ROW = 512


def products_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention's output, (B, T, H, D), in the form that transformers calls attention in.

    Args:
        module: the layer's attention; its `num_key_value_groups` query heads share a key head.
        query: (B, H, T, D).
        key: (B, K, T, D).
        value: (B, K, T, D).
        attention_mask: (B, 1, T, T) bool, True where a token is seen.
        scaling: of the scores; None = D^-0.5.
        dropout: share of the weights that is dropped.
    """
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    # the rotation may have widened queries and keys; and autocast would compute the softmax's output in float32
    with torch.autocast(device, enabled=False):
        groups = query.shape[1] // key.shape[1]
        query, key, value = (one.to(dtype) for one in (query, key, value))
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
        if attention_mask is not None:
            bias = torch.zeros_like(attention_mask, dtype=dtype).masked_fill_(~attention_mask, torch.finfo(dtype).min)
            scores = scores + bias
        weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
        return (weights @ value).transpose(1, 2).contiguous(), None


def choose_attention(model: Any, *, is_bfloat16: bool, row_tokens: int) -> bool:
    """Let a model attend by products where that is faster; return whether it does."""
    inner = causal_model(model)
    config = inner.config.get_text_config()
    faster = (
        is_bfloat16
        and inner.device.type == "cpu"
        and row_tokens <= LONGEST_ROW
        and getattr(config, "_attn_implementation", "") == "sdpa"
        and getattr(config, "sliding_window", None) is None
    )
    if faster:
        _register()
        inner.set_attn_implementation(NAME)
    return faster


def usual_attention(model: Any) -> None:
    """Let a model attend as it is published to: with torch's own attention."""
    inner = causal_model(model)
    if getattr(inner.config.get_text_config(), "_attn_implementation", "") == NAME:
        inner.set_attn_implementation("sdpa")


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def always_a_mask(*arguments: Any, **named: Any) -> Tensor | None:
        return sdpa_mask(*arguments, **{**named, "allow_is_causal_skip": False})

    AttentionInterface.register(NAME, products_attention)
    AttentionMaskInterface.register(NAME, always_a_mask)
