"""Retrieval-augmented answers with one model: what was read to embed a text is not read again to answer from it.

    embed      <|endoftext|> <|embed|> document                       -> vector, and keys and values of every layer
    answer     [keys and values of the document]  question ...        -> answer; only the question is read

GRIT's document caching, and query caching with the query first (Muennighoff et al. 2024, arXiv 2402.09906, section 4). What is
kept is large: 2 x layers x key-value heads x head width numbers a token.

What is lost: under `attention: causal` nothing, the states are those of reading the whole prompt. Under 'bidirectional' a text's
tokens have seen what follows them, which no token has in a training to write: another prompt than the one that was read from
left to right, and answers differ (the paper has +2.9 points on Natural Questions for document caching, -5.0 for query caching;
measure it on your own questions). States of two texts that were read apart are not joined here: neither has seen the other, their
positions overlap, and the paper loses 9 to 12 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genai_core.errors import ModelError
from genai_core.generation.encoding import Encoder
from genai_core.models.backbone import causal_model

Role = Literal["query", "document"]


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """A text that was read to embed it."""

    vector: np.ndarray
    """(D,) float32 of length 1."""

    ids: tuple[int, ...]
    """Of the header and the text."""

    states: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of each layer, each (1, heads, T, width)."""

    def n_bytes(self) -> int:
        """Return the memory of the keys and values."""
        return sum(part.numel() * part.itemsize for layer in self.states for part in layer)


@torch.inference_mode()
def remember(encoder: Encoder, text: str, role: Role) -> Remembered:
    """Return a text's vector, and what its layers made of it, from one pass.

    Raises:
        ModelError: the text is empty.
    """
    from transformers import DynamicCache

    ids, start = encoder.encode_one(text, role)
    if len(ids) == start:
        raise ModelError("An empty text cannot be remembered. Leave it out of the index.")
    cache = DynamicCache()
    vector = encoder.vector_of(ids, start, cache)
    return Remembered(vector, tuple(ids), states_of(cache))


def states_of(cache: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return the keys and values of each layer of a transformers cache."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


@torch.inference_mode()
def read_on(model: Any, before: Remembered, ids: Sequence[int], *, cached: bool = True) -> tuple[Tensor, Any]:
    """Return the logits after the last of further ids, (V,), and the cache to go on with.

    Args:
        model: that the text was remembered with.
        before: the text that the prompt begins with.
        ids: what follows it, at least one.
        cached: False reads the text again, from left to right, as a model without a memory does.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    past = len(before.ids) if cached else 0
    if cached:
        for index, (keys, values) in enumerate(before.states):
            cache.update(keys, values, index)
    told = list(ids) if cached else [*before.ids, *ids]
    return _next(model, told, past, cache), cache


@torch.inference_mode()
def answer_from(
    model: Any,
    before: Remembered,
    ids: Sequence[int],
    *,
    max_new_tokens: int,
    ends: Sequence[int],
    cached: bool = True,
) -> list[int]:
    """Return the greedy answer's ids, without an end token.

    Args:
        model: that the text was remembered with.
        before: the text that the prompt begins with: a document, or the query.
        ids: what follows it, up to where the answer begins.
        max_new_tokens: longest answer.
        ends: tokens at which it ends.
        cached: False reads the text again.
    """
    logits, cache = read_on(model, before, ids, cached=cached)
    answer: list[int] = []
    past = len(before.ids) + len(ids)
    while len(answer) < max_new_tokens:
        token = int(logits.argmax())
        if token in ends:
            break
        answer.append(token)
        logits = _next(model, [token], past, cache)
        past += 1
    return answer


def _next(model: Any, ids: Sequence[int], past: int, cache: Any) -> Tensor:
    device = model.device
    out = causal_model(model)(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.arange(past, past + len(ids), device=device)[None],
        # all that is remembered is seen; among the new tokens the model's own causal mask holds
        attention_mask=torch.ones(1, past + len(ids), dtype=torch.long, device=device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits[0, -1]
    return logits
