"""Does this very model, type and attention backend do what packed training assumes? Run at the start of every run.

Causal probe: another token at j must not move the hidden states before j. Packing probe: another token in the first
document of a row must not move the second. Head probe: the model's own logits are its output embeddings times its
hidden states, with nothing in between (a scale, a cap), because the engine computes log-probabilities that way; of an
encoder, with the transform and the bias that models/encoders says, and the positions that the model makes itself.
Bidirectional probe, where an objective wants that: another token at j must move the hidden states before j, and still not
those of another document. An encoder has only this one and the head probe.
Every probe has a second half, which shows that the edit it makes can be seen at all. objectives.md 0.3.

The limits: an edit that must not be seen may move nothing by more than 1e-6 at float32 (relative to the largest
hidden value; 1e-2 at bfloat16, whose products round at 4e-3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genai_core.errors import ModelError
from genai_core.models.backbone import causal_model, head_logits, head_weight, hidden_states, see_segments
from genai_core.models.encoders import is_encoder

States = Callable[..., Tensor]
"""(input_ids, position_ids, seen or None) -> hidden states."""

PROBE_TOKENS = 12
CHANGED_AT = 4
SEEN_ABOVE = 1e-4


def run_probes(model: Any, states: States | None = None, *, bidirectional: bool = False) -> None:
    """Run the probes; `states` is how the engine calls the model (default: `hidden_states`, no autocast).

    Args:
        model: a causal model or an encoder, adapted or not.
        states: gives its hidden states.
        bidirectional: whether it will also be asked to see both sides.

    Raises:
        ModelError: the model cannot be trained on packed rows here.
    """
    call = states or (lambda input_ids, position_ids, seen=None: hidden_states(model, input_ids, position_ids, seen))
    with _asked(model):
        encoder = is_encoder(causal_model(model))
        if not encoder:
            causal_probe(model, call)
            packing_probe(model, call)
        if bidirectional or encoder:
            bidirectional_probe(model, call)
        head_probe(model)


def run_row_probes(model: Any, states: States) -> None:
    """Run the probes of what is seen in a row alone; `states` is how the engine calls the model.

    Raises:
        ModelError: a position sees one behind it, or another document.
    """
    with _asked(model):
        causal_probe(model, states)
        packing_probe(model, states)


@contextmanager
def _asked(model: Any) -> Iterator[None]:
    """Have no gradients, and no dropout: it would be seen as a leak."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def causal_probe(model: Any, states: States) -> None:
    """Raise ModelError if a later token is seen by an earlier position."""
    input_ids = _tokens(model)
    positions = torch.arange(PROBE_TOKENS, device=input_ids.device)[None]
    moved = _movement(states, input_ids, positions, changed=CHANGED_AT)
    _expect_still(model, moved[:CHANGED_AT], "a token is seen by positions before it: attention is not causal")
    _expect_moved(model, moved[CHANGED_AT:], "causal probe")


def packing_probe(model: Any, states: States) -> None:
    """Raise ModelError if the second document of a packed row sees the first."""
    input_ids = _tokens(model)
    half = PROBE_TOKENS // 2
    packed = torch.cat([torch.arange(half), torch.arange(PROBE_TOKENS - half)]).to(input_ids.device)[None]
    moved = _movement(states, input_ids, packed, changed=CHANGED_AT)
    _expect_still(model, moved[half:], "the second document of a packed row sees the first: rows are not isolated")
    whole = torch.arange(PROBE_TOKENS, device=input_ids.device)[None]
    _expect_moved(model, _movement(states, input_ids, whole, changed=CHANGED_AT)[half:], "packing probe")


def bidirectional_probe(model: Any, states: States) -> None:
    """Raise ModelError if a token is not seen by positions before it although it should, or is by another document."""
    input_ids = _tokens(model)
    half = PROBE_TOKENS // 2
    packed = torch.cat([torch.arange(half), torch.arange(PROBE_TOKENS - half)]).to(input_ids.device)[None]
    segments = (torch.arange(PROBE_TOKENS, device=input_ids.device) >= half)[None]
    moved = _movement(states, input_ids, packed, see_segments(segments), changed=CHANGED_AT)
    _expect_still(model, moved[half:], "the second document of a packed row sees the first: rows are not isolated")
    if not float(moved[:CHANGED_AT].max()) > SEEN_ABOVE:
        raise ModelError(
            f"{_name(model)}: a token is not seen by positions before it, although it was asked to attend to both sides "
            f"(they moved by {float(moved[:CHANGED_AT].max()):.2g}). Use attn_implementation 'sdpa' or 'eager', or another "
            "model class."
        )


def head_probe(model: Any) -> None:
    """Raise ModelError if the logits are not the output embeddings times the hidden states."""
    input_ids = _tokens(model)
    positions = torch.arange(PROBE_TOKENS, device=input_ids.device)[None]
    inner, logits_dtype = causal_model(model), head_weight(model).dtype
    if is_encoder(inner):
        logits = inner(input_ids=input_ids).logits.float()
        ours = head_logits(model, hidden_states(model, input_ids, positions, see_segments(positions * 0))).float()
    else:
        logits = inner(input_ids=input_ids, use_cache=False).logits.float()
        ours = head_logits(model, hidden_states(model, input_ids, positions)).float()
    error = float((logits - ours).abs().max() / logits.abs().max().clamp_min(1e-12))
    # an encoder is asked here with a mask and there without one, which rounds otherwise
    narrow = is_encoder(inner) and logits_dtype in (torch.bfloat16, torch.float16)
    if not error <= (3e-2 if narrow else 1e-4):
        raise ModelError(
            f"{_name(model)}: its logits differ from output embeddings times hidden states by {error:.2g} of their largest "
            "value, so it scales, caps or shifts them. Use a model with a plain linear head (Llama, Qwen, Mistral, SmolLM), or "
            "a BERT-like encoder."
        )


def _tokens(model: Any) -> Tensor:
    vocab, device = head_weight(model).shape[0], head_weight(model).device
    # fixed, distinct and spread over the vocabulary; no generator, so that nothing of the run's noise is used up
    return (torch.arange(1, PROBE_TOKENS + 1, device=device) * max(1, (vocab - 1) // (PROBE_TOKENS + 2)) % vocab)[None]


def _movement(
    states: States, input_ids: Tensor, positions: Tensor, seen: Tensor | None = None, *, changed: int
) -> Tensor:
    """Return how far each position's hidden state moves when one token changes, (T,), in shares of the largest value."""
    other = input_ids.clone()
    other[0, changed] = (other[0, changed] + 1) % (int(input_ids.max()) + 1)
    before, after = states(input_ids, positions, seen).float(), states(other, positions, seen).float()
    return ((after - before).abs().amax(dim=-1) / before.abs().max().clamp_min(1e-12))[0]


def _expect_still(model: Any, moved: Tensor, complaint: str) -> None:
    limit = 1e-2 if head_weight(model).dtype in (torch.bfloat16, torch.float16) else 1e-6
    largest = float(moved.max())
    if not largest <= limit:
        raise ModelError(
            f"{_name(model)}: {complaint} (a changed token moved them by {largest:.2g}, at most {limit:.0e} is rounding). "
            "Use attn_implementation 'sdpa' or 'eager', or another model class."
        )


def _expect_moved(model: Any, moved: Tensor, probe: str) -> None:
    largest = float(moved.max())
    if not largest > SEEN_ABOVE * 1e-2:
        raise ModelError(
            f"{_name(model)}: the {probe} cannot see its own edit (largest movement {largest:.2g}); the model ignores its "
            "input, or its weights are broken. Check the base model."
        )


def _name(model: Any) -> str:
    base = causal_model(model)
    return f"{type(base).__name__} ({base.config._attn_implementation})"
