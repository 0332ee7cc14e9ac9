"""Text from models that see both sides: masks are filled in, some tokens a pass, in an order that is chosen on the way.

    unmask         fill the masks of a row, k a pass; what is filled stays            (diffusion; template refill)
    mask_predict   fill all, mask the least certain again, fewer each time            (Ghazvininejad et al. 2019)
    resample       mask one token, draw it anew, and so through the row, many times   (Gibbs; Wang and Cho 2019)

`unmask` with one token a pass draws from the model's joint distribution in whatever order, as long as the position is
chosen before the token is drawn: `order` "confidence" takes the position whose likeliest token is likeliest. "drawn", by
the probability of the token just drawn, is LLaDA's rule (arXiv 2502.09992, "low-confidence remasking") and seeks modes:
it is exact only where the likeliest token is taken (temperature 0). More tokens a pass are drawn independently of each
other: faster, and no longer the joint. With `block_length` the row is finished block by block from left to right.

Noise belongs to the row (row id, pass, position), not to the batch. Shapes: B rows, T positions, V entries, N positions
that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genai_core.config.generation import UnmaskingConfig
from genai_core.generation.sampling import gumbel_noise, keep_likely, row_keys

Predict = Callable[[Tensor, Tensor], Tensor]
"""(ids (B, T), asked (B, T) bool) -> logits (N, V) of the asked positions in row order; that of the mask is -inf."""


MOST_TOKENS = 1 << 15
"""Positions of a row; a fixed number, so that padding does not change a row's noise."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Rows without masks."""

    ids: Tensor
    """(B, T)."""

    passes: int
    """How often the model was asked, for all rows together."""

    logps: Tensor
    """(B, T) float64, log-probability in nats of each token when it was filled in; 0 where nothing was."""


def unmask(
    predict: Predict,
    ids: Tensor,
    mask_id: int,
    config: UnmaskingConfig,
    row_ids: Sequence[str],
    free: Tensor | None = None,
) -> Filled:
    """Return the rows with every mask filled; no other token is changed.

    Args:
        predict: the model.
        ids: (B, T) with masks wherever something is to be written.
        mask_id: the mask.
        config: tokens a pass, order, temperature, blocks.
        row_ids: decide the noise of each row.
        free: (B, T) bool, what is to be written; None = where a mask stands.
    """
    ids, keys, passes = ids.clone(), row_keys(config.seed, row_ids).to(ids.device), 0
    left = ids == mask_id if free is None else free.clone()
    logps = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    for block in _blocks(left, config.block_length):
        while bool((asked := left & block).any()):
            turn = left.sum(1)  # of the row's own, whatever the batch waits for
            drawn, scores, found = _draw(predict(ids, asked), asked, config, keys, turn)
            chosen = _best(scores, asked, torch.full((len(ids),), config.tokens_per_pass, device=ids.device))
            ids, logps, left = torch.where(chosen, drawn, ids), torch.where(chosen, found, logps), left & ~chosen
            passes += 1
    return Filled(ids, passes, logps)


def mask_predict(
    predict: Predict,
    ids: Tensor,
    mask_id: int,
    passes: int,
    config: UnmaskingConfig,
    row_ids: Sequence[str],
    free: Tensor | None = None,
) -> Filled:
    """Return the rows with every mask filled, all of them in each of so many passes, the least certain again and again.

    In pass t of K the n (K - t) / K least probable of a row's n tokens are masked again (arXiv 1904.09324, section 3).

    Args:
        predict: the model.
        ids: (B, T) with masks wherever something is to be written.
        mask_id: the mask.
        passes: K, at least 1; 1 fills all at once.
        config: temperature and what is kept of the distribution.
        row_ids: decide the noise of each row.
        free: (B, T) bool, what is to be written; None = where a mask stands.
    """
    free = ids == mask_id if free is None else free
    total, keys = free.sum(1), row_keys(config.seed, row_ids).to(ids.device)
    ids = ids.clone()
    scores = torch.full(ids.shape, -torch.inf, dtype=torch.float64, device=ids.device)
    drawing = config.model_copy(update={"order": "drawn"})
    logps = torch.zeros_like(scores)
    asked = free
    for number in range(passes):
        drawn, found, logp = _draw(predict(ids, asked), asked, drawing, keys, torch.full_like(total, number))
        logps = torch.where(asked, logp, logps)
        ids, scores = torch.where(asked, drawn, ids), torch.where(asked, found, scores)
        again = total * (passes - 1 - number) // passes
        asked = _best(-scores, free, again)
        if not bool(asked.any()):
            return Filled(ids, number + 1, logps)
        ids = ids.masked_fill(asked, mask_id)
    return Filled(ids, passes, logps)


def resample(
    predict: Predict,
    ids: Tensor,
    free: Tensor,
    mask_id: int,
    sweeps: int,
    config: UnmaskingConfig,
    row_ids: Sequence[str],
) -> Filled:
    """Return the rows after so many sweeps of Gibbs sampling: each free token masked and drawn anew given all others.

    Neighbours are never masked together: filled independently they would not fit each other. Every sweep visits the free
    positions once, from left to right or in an order of its own for each row ("random").

    Args:
        predict: the model.
        ids: (B, T) without masks.
        free: (B, T) bool, what may change.
        mask_id: the mask.
        sweeps: passes over all free positions.
        config: `order` "left" or "random"; temperature and what is kept of the distribution.
        row_ids: decide the noise of each row.
    """
    ids, keys, passes = ids.clone(), row_keys(config.seed, row_ids).to(ids.device), 0
    rows = torch.arange(len(ids), device=ids.device)
    logps = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    for sweep in range(sweeps):
        place = _visits(free, config, keys, sweep)  # (B, T) the free positions first, in the order of visiting
        for step in range(int(free.sum(1).max()) if len(ids) else 0):
            asked = torch.zeros_like(free)
            asked[rows, place[:, step]] = step < free.sum(1)
            shown = ids.masked_fill(asked, mask_id)
            drawn, _, found = _draw(predict(shown, asked), asked, config, keys, sweep * free.sum(1) + step)
            ids, logps = torch.where(asked, drawn, ids), torch.where(asked, found, logps)
            passes += 1
    return Filled(ids, passes, logps)


def _blocks(masks: Tensor, length: int) -> list[Tensor]:
    """Return which positions belong to each block, (B, T) bool: each row's masks in stretches of `length`."""
    if not length:
        return [masks]
    number = (masks.cumsum(1) - 1) // length  # of the block that a mask is in
    last = int(number.max()) if masks.any() else -1
    return [masks & (number == index) for index in range(last + 1)]


def _draw(
    logits: Tensor, asked: Tensor, config: UnmaskingConfig, keys: Tensor, turn: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a token for each asked position, by how much it should come first, -inf elsewhere, and its log-probability.

    (B, T) all three.
    """
    wide = logits.double()
    rows, places = asked.nonzero(as_tuple=True)
    if config.temperature == 0:
        tokens = wide.argmax(-1)
    else:
        kept = keep_likely(wide / config.temperature, config.top_k, config.top_p)
        # a number of its own for each (turn, position): no two draws of a row share their noise
        numbers = turn[rows] * MOST_TOKENS + places
        tokens = (kept + gumbel_noise(keys[rows], numbers, logits.shape[-1]).double()).argmax(-1)
    logps = wide.log_softmax(-1)
    own = logps.gather(1, tokens[:, None])[:, 0]
    match config.order:
        case "drawn":
            score = own
        case "confidence":
            score = logps.amax(-1)
        case "margin":
            two = logps.exp().topk(min(2, logps.shape[-1]), dim=-1).values
            score = two[:, 0] - two[:, -1]
        case "entropy":
            score = torch.special.entr(logps.exp()).sum(-1).neg()
        case "left":
            score = -places.double()
        case "random":
            score = gumbel_noise(keys[rows] ^ -1, places, 1)[:, 0].double()
    drawn = torch.zeros(asked.shape, dtype=torch.int64, device=logits.device)
    scores = torch.full(asked.shape, -torch.inf, dtype=torch.float64, device=logits.device)
    found = torch.zeros(asked.shape, dtype=torch.float64, device=logits.device)
    drawn[asked], scores[asked], found[asked] = tokens, score, own
    return drawn, scores, found


def _best(scores: Tensor, among: Tensor, counts: Tensor) -> Tensor:
    """Return the positions with the highest scores of each row, (B, T) bool, `counts` (B,) of them at most."""
    ranks = scores.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return among & (ranks < counts[:, None])


def _visits(free: Tensor, config: UnmaskingConfig, keys: Tensor, sweep: int) -> Tensor:
    places = torch.arange(free.shape[1], device=free.device).expand(free.shape)
    scores = -places.double()
    if config.order == "random":
        numbers = (places + sweep * MOST_TOKENS).reshape(-1)
        noise = gumbel_noise((keys ^ -1).repeat_interleave(free.shape[1], 0), numbers, 1)
        scores = noise.reshape(free.shape).double()
    return scores.masked_fill(~free, -torch.inf).argsort(dim=1, descending=True, stable=True)
