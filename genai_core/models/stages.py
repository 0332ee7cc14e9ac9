"""A decoder cut between its layers: each part takes hidden states and gives hidden states.

    first part    embeddings, layers            between    layers            last part    layers, norm, head

What a part does not have is let go of, and weights keep their names. The decoder's own forward runs every part: other parts'
layers hand on what they are given, so masks, rotations and the passes' settings come about as they do in the whole model.
Tied embeddings are with the first part and with the last.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.errors import ConfigError
from genai_core.models.backbone import RUN_DECODER, causal_model
from genai_core.models.encoders import is_encoder

ENTERING = "entering"


@dataclass(frozen=True, slots=True)
class Part:
    """What is left of a model, and what it was."""

    layers: range
    width: int
    """D of the hidden states."""

    dtype: torch.dtype
    """Of the hidden states between two parts."""

    elsewhere: frozenset[str]
    """Names of the weights that other parts have."""

    tied: str = ""
    """Name of the matrix that is embeddings and head at once, where this part is one of the two that have it."""


def split_layers(layers: int, parts: int, head: float = 0.0) -> list[range]:
    """Return which layers each part has: at least one, contiguous, so that the slowest is as fast as can be.

    Args:
        layers: of the decoder.
        parts: how many.
        head: what the head costs, in layers; the last part has it.

    Raises:
        ConfigError: fewer layers than parts.
    """
    if layers < parts:
        raise ConfigError(
            f"compute.pipeline_stages={parts} is more than the {layers} layers of the model. Set it to at most {layers}."
        )

    def slowest(last: int) -> tuple[float, float]:
        others = -(-(layers - last) // (parts - 1))
        return max(others, last + head), abs(others - last)

    last = min(range(1, layers - parts + 2), key=slowest) if parts > 1 else layers
    base, extra = divmod(layers - last, max(1, parts - 1))
    # the first part has the embeddings too: larger shares come later
    sizes = [base + (index >= parts - 1 - extra) for index in range(parts - 1)] + [last]
    ends = [sum(sizes[: index + 1]) for index in range(parts)]
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def check_parts(model: Any, parts: int) -> None:
    """Raise ConfigError if a model cannot be cut so.

    Args:
        model: a causal model, adapted or not, whole.
        parts: how many.
    """
    inner = causal_model(model)
    if is_encoder(inner):
        raise ConfigError(
            f"compute.pipeline_stages={parts} cuts decoders, but the base is an encoder ({type(inner).__name__}). "
            "Use compute.pipeline_stages=1."
        )
    decoder, head = inner.get_decoder(), inner.get_output_embeddings()
    pieces = [getattr(decoder, name, None) for name in ("embed_tokens", "layers", "norm")]
    known = {id(tensor) for piece in (*pieces, head) if piece is not None for tensor in piece.parameters()}
    if None in pieces or any(id(tensor) not in known for tensor in inner.parameters()):
        raise ConfigError(
            f"compute.pipeline_stages={parts} cuts models of embeddings, layers, a norm and a head, and {type(inner).__name__} has "
            "other weights too. Use compute.pipeline_stages=1, or a Llama, Qwen, Mistral or SmolLM."
        )
    _ranges(inner, parts)


def keep_part(model: Any, index: int, parts: int) -> Part:
    """Let go of all weights but those of one part, in place; `enter` says what it computes on next.

    Args:
        model: a causal model, adapted or not, whole; `check_parts` has been asked.
        index: which part.
        parts: how many, at least two.
    """
    inner = causal_model(model)
    decoder, head = inner.get_decoder(), inner.get_output_embeddings()
    names = {name for name, _ in model.named_parameters()}
    weight = decoder.embed_tokens.weight
    is_first, is_last, is_tied = index == 0, index == parts - 1, weight is head.weight
    shared = next((name for name, one in model.named_parameters() if is_tied and one is weight), "")
    own = _ranges(inner, parts)[index]
    width, dtype = weight.shape[1], weight.dtype
    for number in range(len(decoder.layers)):
        if number not in own:
            decoder.layers[number] = HandOn(decoder.layers[number])
    if not is_first and not (is_last and is_tied):  # with the last part it lends the head its name
        decoder.embed_tokens = None
    if not is_last:
        decoder.norm = nn.Identity()
        for name in [name for name, child in inner.named_children() if child is head]:
            setattr(inner, name, None)
    setattr(inner, RUN_DECODER, types.MethodType(_run_decoder, inner))
    enter(model, None)
    elsewhere = frozenset(names - {name for name, _ in model.named_parameters()})
    return Part(own, width, dtype, elsewhere, shared if is_first or is_last else "")


def enter(model: Any, hidden: Tensor | None) -> None:
    """Say what comes out of the part before, (B, T, D), for the next pass; None for the first part, which has tokens."""
    setattr(causal_model(model), ENTERING, hidden)


class HandOn(nn.Module):
    """In the place of a layer that another part has."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):  # some decoders choose a layer's mask by it
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return what is given."""
        return hidden_states


def _run_decoder(self: Any, *, input_ids: Tensor, **inputs: Any) -> Any:
    hidden = getattr(self, ENTERING)
    given = {"input_ids": input_ids} if hidden is None else {"inputs_embeds": hidden}
    return self.get_decoder()(**given, **inputs)


def _ranges(inner: Any, parts: int) -> Sequence[range]:
    layers = inner.get_decoder().layers
    of_layer = sum(tensor.numel() for tensor in layers[0].parameters())
    return split_layers(len(layers), parts, inner.get_output_embeddings().weight.numel() / of_layer)
