"""From logits to tokens: temperature, top-k, top-p, and noise that belongs to the row, not to the batch.

    token = argmax_v ( logits_v / temperature + g_v ),    g_v = -log(-log(u_v)),    u_v uniform

is a draw from softmax(logits / temperature) (the Gumbel-max trick, Yellott 1977). `u_v` is a hash of (sampling seed,
row id, position, token id), so a row draws the same noise alone, in any batch and in any order; nothing is carried
from step to step that a resumed shard would have to bring back.

The hash is the 32-bit mixer "lowbias32" (Wellons, "Prospecting for hash functions", 2018), applied twice with 64 bits of key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from genai_core.config.generation import SamplingConfig


def row_keys(seed: int, row_ids: Sequence[str]) -> Tensor:
    """Return the noise key of each row, (B, 2) int32: the first 64 bits of sha256(seed, row id)."""
    digests = [hashlib.sha256(f"{seed}\n{row_id}".encode()).digest() for row_id in row_ids]
    words = [[int.from_bytes(d[i : i + 4], "little", signed=True) for i in (0, 4)] for d in digests]
    return torch.tensor(words, dtype=torch.int32).reshape(-1, 2)


def gumbel_noise(keys: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Return standard Gumbel noise, (B, V) float32.

    Args:
        keys: (B, 2) int32 of `row_keys`.
        positions: (B,) number of the token being drawn, from 0.
        vocab_size: V.
    """
    place = _mix(positions.to(torch.int32) + keys[:, 0])  # (B,)
    tokens = torch.arange(vocab_size, dtype=torch.int32, device=keys.device)
    bits = _mix(_mix(tokens ^ place[:, None]).add_((keys[:, 1] ^ place)[:, None]))  # (B, V)
    # 23 bits and a half: exact in float32, never 0 and never 1, so both logarithms are finite
    uniform = (bits >> 9).bitwise_and_(0x7FFFFF).to(torch.float32).add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def keep_likely(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return logits with all but the likely tokens at -inf, (B, V).

    Args:
        logits: (B, V), already divided by the temperature.
        top_k: keep the k largest (ties with the k-th too); 0 = all.
        top_p: then keep the smallest set of the largest with at least this probability; 1 = all. One is always kept.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, index = logits.sort(dim=-1)  # ascending
        drop = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        drop[:, -1] = False
        logits = logits.masked_fill(drop.scatter(1, index, drop), float("-inf"))
    return logits


def choose_tokens(
    logits: Tensor, sampling: SamplingConfig, keys: Tensor, positions: Tensor, greedy: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the next tokens, (B,) int64, and their log-probabilities under the model itself, (B,) in nats.

    The log-probability is of the full distribution at temperature 1, whatever the sampling.

    Args:
        logits: (B, V) as the model gave them, float32 or float64.
        sampling: temperature 0 is greedy.
        keys: (B, 2) int32 of `row_keys`; not read when greedy.
        positions: (B,) number of the token being drawn.
        greedy: (B,) bool, rows that are greedy whatever the sampling; None = none.
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
    else:
        kept = keep_likely(logits / sampling.temperature, sampling.top_k, sampling.top_p)
        tokens = (kept + gumbel_noise(keys, positions, logits.shape[-1])).argmax(dim=-1)
        if greedy is not None:
            tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)


def _mix(x: Tensor) -> Tensor:
    """Return a bijective scramble of int32 words (lowbias32); shifts are made logical by the masks."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x.mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.mul_(0x846CA68B - (1 << 32))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
