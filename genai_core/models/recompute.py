"""Activation checkpointing: keep what enters a decoder layer, and compute the inside again when its gradient is due.

    kept for the backward pass     all that every layer computes        ->  (B, T, D) per layer, and one layer's inside
    work                           forward + backward                   ->  one forward more

Chen et al. 2016, arXiv 1604.06174. The second pass makes the same operations on the same values, under the same autocast
and with the random state that the first had (dropout), so the gradient is the same bit for bit. The layers and the
recomputation are transformers' and torch's (`torch.utils.checkpoint`, the variant without re-entering autograd, which
also serves a layer whose input needs no gradient: the first one below a frozen embedding).
"""

from __future__ import annotations

from typing import Any

from genai_core.errors import ConfigError
from genai_core.models.backbone import causal_model


def recompute_layers(model: Any) -> None:
    """Let every decoder layer be computed again in the backward pass, in training mode only.

    Args:
        model: a causal model, adapted or not.

    Raises:
        ConfigError: the architecture has no layers that transformers can compute again.
    """
    inner = causal_model(model)
    if not inner.supports_gradient_checkpointing:
        raise ConfigError(
            f"compute.activation_checkpointing=true, but {type(inner).__name__} has no layers that can be computed again. "
            "Set it to false and lower compute.micro_batch_rows instead."
        )
    inner.activation_checkpointing_enable({"use_reentrant": False})


def keep_activations(model: Any) -> None:
    """Let every layer keep what its gradient needs, as it does when it is loaded."""
    inner = causal_model(model)
    if inner.supports_gradient_checkpointing:
        inner.activation_checkpointing_disable()


def recomputes_layers(model: Any) -> bool:
    """Return whether the layers are computed again."""
    return bool(causal_model(model).is_activation_checkpointing)
