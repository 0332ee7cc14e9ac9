"""The parts of a model that the engine calls: the body below the head, and the head's matrix, bias and transform.

Rows are packed: several documents in one row, told apart by `position_ids` that restart at 0. transformers makes the
block-diagonal causal mask from them, but only without an `attention_mask` and with `use_cache=False`; with an all-ones
mask or a cache the protection is silently off (transformers issue 46634). So hidden states come from here only, and
`models/probes.py` checks the isolation on the real model at the start of every run. An encoder (models/encoders) is always
told what each token sees.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.errors import ModelError
from genai_core.models.encoders import encoder_states, is_encoder, transform_states

RUN_DECODER = "run_decoder"
"""Method of a causal model that runs its decoder within its own hooks, where it has one (training/sharding.py)."""


def causal_model(model: Any) -> Any:
    """Return the transformers model with its head; of an adapted model, the base with the adapter's layers in it."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def hidden_states(
    model: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    seen: Tensor | None = None,
    token_types: Tensor | None = None,
) -> Tensor:
    """Return the final hidden states, (B, T, D), of packed rows.

    Args:
        model: a causal model or an encoder, adapted or not.
        input_ids: (B, T).
        position_ids: (B, T), restarting at 0 where a new document begins.
        seen: (B, T, T) bool, True where the token of the second index is seen by that of the first; None = those of the
            same document up to itself. Every token sees itself.
        token_types: (B, T), the text of a pair that a token is of, 0 or 1; for encoders that know such types.

    Raises:
        ModelError: an encoder is asked to read from left to right.
    """
    inner = causal_model(model)
    if is_encoder(inner):
        if seen is None:
            raise ModelError(
                f"{type(inner).__name__} is an encoder and sees both sides, so it cannot predict from left to right. Train it "
                "with objective.kind='masked_lm' (or 'masked_diffusion', 'linked_lm'), or use a decoder as base."
            )
        return encoder_states(inner, input_ids, position_ids, seen, token_types)
    decoder = getattr(inner, RUN_DECODER, None) or inner.get_decoder()
    # a mask of four dimensions is taken as it is, by every attention and by decoders as by encoders
    mask = None if seen is None else seen.unsqueeze(1)
    out: Tensor = decoder(
        input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
    ).last_hidden_state
    return out


def see_segments(segment_ids: Tensor) -> Tensor:
    """Return what is seen where every token sees all of its own segment, (B, T, T) bool.

    Args:
        segment_ids: (B, T).
    """
    return segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)


def head_weight(model: Any) -> Tensor:
    """Return the output embeddings, (V, D)."""
    weight: Tensor = causal_model(model).get_output_embeddings().weight
    return weight


def head_bias(model: Any) -> Tensor | None:
    """Return what is added to the logits, (V,), or None."""
    bias: Tensor | None = getattr(causal_model(model).get_output_embeddings(), "bias", None)
    return bias


def head_states(model: Any, hidden: Tensor) -> Tensor:
    """Return what the output embeddings are multiplied with, (..., D): of a decoder the final hidden states themselves."""
    inner = causal_model(model)
    return transform_states(inner, hidden) if is_encoder(inner) else hidden


def head_logits(model: Any, hidden: Tensor) -> Tensor:
    """Return the logits, (..., V), of a few positions' final hidden states, (..., D)."""
    return nn.functional.linear(head_states(model, hidden), head_weight(model), head_bias(model))


def keep_float64(model: nn.Module) -> None:
    """Make a float64 model compute in float64 throughout.

    transformers' RMS norms go through float32 whatever the model's type, so that a claim at float64 would be one at
    float32. Their formula is kept: x / sqrt(mean(x^2) + eps) * weight.
    """
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = types.MethodType(_rms_norm, module)


def _rms_norm(self: Any, hidden: Tensor) -> Tensor:
    scaled = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    out: Tensor = self.weight * scaled
    return out
