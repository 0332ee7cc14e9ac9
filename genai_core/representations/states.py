"""Labelled texts -> hidden states at the points of a model, and their moments with the labels.

A text's label is that of each of its tokens; a token counts 1 / (tokens of its text), so that every text counts once. Then
Cov(token, label) is Cov(mean of a text's tokens, label), and one eraser guards single tokens and mean-pooled texts alike.
Special tokens and padding are read by the model and left out of everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from genai_core.data.tokenizer import document_end_id, encode_documents
from genai_core.models.families import Family
from genai_core.representations.moments import Moments, measure, merge_tree, no_moments
from genai_core.representations.scrubbing import Erase, observe

BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """What the model reads of a text, and which of it is the text's own."""

    row: int
    ids: tuple[int, ...]
    own: tuple[bool, ...]


def encode(tokenizer: Any, family: Family, texts: Sequence[str], max_tokens: int) -> list[Text]:
    """Return the ids of each text: after the document mark for a causal model, between an encoder's own marks else.

    Args:
        tokenizer: of the model.
        family: of the model.
        texts: any.
        max_tokens: tokens of a text that are read, marks not counted.
    """
    found = []
    for row, ids in enumerate(encode_documents(tokenizer, texts)):
        kept = ids[:max_tokens]
        if family == "causal":
            found.append(Text(row, (document_end_id(tokenizer), *kept), (False, *[True] * len(kept))))
            continue
        before, after = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
        found.append(Text(row, (*before, *kept, *after), (False, *[True] * len(kept), False)))
    return found


def batches(texts: Sequence[Text], max_tokens: int = BATCH_TOKENS) -> Iterator[list[Text]]:
    """Yield the texts that have tokens of their own, alike in length, at most so many tokens at once when padded."""
    batch: list[Text] = []
    for text in sorted((text for text in texts if any(text.own)), key=lambda text: (-len(text.ids), text.row)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > max_tokens:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def read(
    model: Any, batch: Sequence[Text], erasers: Mapping[str, Erase], points: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return what each point passes on, (B, T, D), and which tokens are the texts' own, (B, T) bool."""
    width = max(len(text.ids) for text in batch)
    device = next(model.parameters()).device

    def padded(of: Callable[[Text], Sequence[int]]) -> Tensor:
        return torch.tensor([[*of(text), *[0] * (width - len(text.ids))] for text in batch], device=device)

    ids, own = padded(lambda text: text.ids), padded(lambda text: text.own).bool()
    mask = padded(lambda text: [1] * len(text.ids))
    body = model.base_model
    seen = observe(model, erasers, points, lambda: body(input_ids=ids, attention_mask=mask))
    return seen, own


def moments_at(
    model: Any,
    texts: Sequence[Text],
    labels: Sequence[int],
    n_labels: int,
    erasers: Mapping[str, Erase],
    points: Sequence[str],
) -> dict[str, Moments]:
    """Return the moments of every point's states with the one-hot labels of their texts.

    Args:
        model: a transformers model.
        texts: encoded.
        labels: of each text, by its `row`, from 0.
        n_labels: how many there are.
        erasers: active meanwhile, by point.
        points: wanted, in the order of a pass.
    """
    found: dict[str, list[Moments]] = {point: [] for point in points}
    for batch in batches(texts):
        seen, own = read(model, batch, erasers, points)
        z = one_hot(torch.tensor([labels[text.row] for text in batch]), n_labels)
        lengths = own.sum(dim=1).cpu()
        rows = own.nonzero()[:, 0].cpu()
        for point, states in seen.items():
            found[point].append(measure(states[own], z[rows], 1 / lengths[rows].double()))
    d = model.config.get_text_config().hidden_size
    return {point: merge_tree(parts or [no_moments(d, n_labels)]) for point, parts in found.items()}


def pooled_at(
    model: Any, texts: Sequence[Text], erasers: Mapping[str, Erase], points: Sequence[str]
) -> dict[str, Tensor]:
    """Return the mean of every text's own states at each point, (n, D) float64; 0 for a text without tokens."""
    d = model.config.get_text_config().hidden_size
    found = {point: torch.zeros(len(texts), d, dtype=torch.float64) for point in points}
    for batch in batches(texts):
        seen, own = read(model, batch, erasers, points)
        weights = own.double() / own.sum(dim=1, keepdim=True)
        rows = torch.tensor([text.row for text in batch])
        for point, states in seen.items():
            found[point][rows] = torch.einsum("bt,btd->bd", weights, states.double()).cpu()
    return found
