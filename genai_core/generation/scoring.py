"""The loss of given text under a model: documents for bits per byte, answers for answer loss.

A document longer than the model is read in windows that overlap by half; a window scores only what no earlier one has
scored, so every token counts once and (after the first window) with at least half a window before it:

    <end> a b c d e f g h        window of 4, tokens scored by each window
    <end> a b c                  a b c
          a b c d ...            d            (after the first window, half a window each)

Sums are in nats, over float64; only the caller divides: bits per byte = sum nll / (ln 2 * sum n_bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genai_core.data.templates import render_example
from genai_core.data.tokenizer import document_end_id, encode_documents
from genai_core.errors import ModelError
from genai_core.generation.prompts import longest_row

MAX_WINDOW = 2048
"""Longest window in tokens: attention is quadratic, and half of this is context enough."""

BATCH_TOKENS = 8192
CPU_BATCH_TOKENS = 2048
"""Small enough that what passes between layers stays in a processor's cache: 20 % faster than 8192 at a width of 256."""

LOGITS_AT_ONCE = 1 << 26
"""Entries of one batch's logits: 256 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens read in one pass; those from `start` on are scored, each given all before it."""

    row: int
    ids: list[int]
    start: int


@torch.inference_mode()
def score(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the loss of every row, in row order.

    A row {"row_id", "text"} is a document: {"row_id", "nll", "n_tokens", "n_bytes"}, nll in nats over all its tokens,
    the first given the document mark. A row {"row_id", "prompt", "completion"} is an answer under the chat template:
    {"row_id", "nll", "n_tokens"} over the answer's tokens and its end of turn.

    Args:
        model: a transformers causal language model in eval mode.
        tokenizer: its tokenizer.

    Raises:
        ModelError: prompt and answer together are longer than the model.
    """
    longest = longest_row(model.config)
    scored = [{"row_id": row["row_id"], "nll": 0.0, "n_tokens": 0} for row in rows]
    pieces: list[Piece] = []
    for index, row in enumerate(rows):
        if "text" in row:
            ids = next(encode_documents(tokenizer, [row["text"]]))
            scored[index]["n_bytes"] = len(row["text"].encode())
            pieces += cut_windows(index, [document_end_id(tokenizer), *ids], min(longest or MAX_WINDOW, MAX_WINDOW))
        else:
            ids, loss_mask = render_example(tokenizer, row["prompt"], row["completion"])
            if longest is not None and len(ids) > longest:
                raise ModelError(
                    f"Row {row['row_id']!r}: prompt and answer have {len(ids)} tokens and the model holds {longest}. "
                    "Leave the row out or use a model with a longer context."
                )
            # one answer, at the end: what is trained on runs from its first token to the end of the row
            pieces.append(Piece(index, ids, len(ids) - sum(loss_mask)))
    vocab_size = model.get_output_embeddings().weight.shape[0]
    most = CPU_BATCH_TOKENS if model.device.type == "cpu" else BATCH_TOKENS
    for batch in _batches(pieces, min(most, max(1, LOGITS_AT_ONCE // vocab_size))):
        for piece, (nll, n_tokens) in zip(batch, _nll(model, batch), strict=True):
            scored[piece.row]["nll"] += nll
            scored[piece.row]["n_tokens"] += n_tokens
    return scored


def cut_windows(row: int, ids: list[int], window: int) -> list[Piece]:
    """Return the windows over ids[0] (given, not scored) and the tokens after it."""
    pieces = [Piece(row, ids[:window], 1)]
    done = len(pieces[0].ids)
    step = max(1, window // 2)
    while done < len(ids):
        end = min(done + step, len(ids))
        pieces.append(Piece(row, ids[max(0, end - window) : end], done - max(0, end - window)))
        done = end
    return pieces


def _batches(pieces: Sequence[Piece], max_tokens: int) -> list[list[Piece]]:
    """Return batches of pieces alike in what is given and what is scored, each at most so many tokens when padded."""
    batches: list[list[Piece]] = []
    width = 0
    for piece in sorted(pieces, key=lambda piece: (-len(piece.ids), piece.start, piece.row)):
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = len(piece.ids)
        batches[-1].append(piece)
    return batches


def _nll(model: Any, batch: Sequence[Piece]) -> list[tuple[float, int]]:
    """Return (nll, number of tokens) of each piece. Right padding needs no mask: no token sees what comes after it."""
    width = len(batch[0].ids)
    ids = torch.tensor([piece.ids + [0] * (width - len(piece.ids)) for piece in batch], device=model.device)
    wanted = torch.zeros(len(batch), width, dtype=torch.bool)
    for index, piece in enumerate(batch):
        wanted[index, piece.start : len(piece.ids)] = True
    wanted = wanted.to(model.device)
    # logits at t predict t + 1; nothing is asked of the positions before the first scored token
    keep = width - min(piece.start for piece in batch) + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[:, :-1]
    select = wanted[:, 1:][:, -logits.shape[1] :]
    losses = _token_losses(logits[select], ids[:, 1:][:, -logits.shape[1] :][select])
    sums = torch.zeros(len(batch), dtype=torch.float64, device=losses.device)
    sums.index_add_(0, select.nonzero()[:, 0], losses)
    return list(zip(sums.tolist(), wanted.sum(dim=1).tolist(), strict=True))


def _token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log p of each target, (N,) float64 nats, from logits (N, V)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return (logits.logsumexp(dim=-1) - logits.gather(1, targets[:, None])[:, 0]).double()
