"""What counting alone predicts: interpolated Kneser-Ney n-grams over the same rows, the yardstick of a language model.

    p_n(w | h) = max(c(h w) - D, 0) / c(h)  +  D t(h) / c(h)  p_{n-1}(w | h')        p_0 = 1 / V

c counts what was seen at the highest order, and below it the number of different tokens seen before (continuations);
t(h) is the number of different tokens seen after h, h' is h without its oldest token, D = n_1 / (n_1 + 2 n_2) from the
numbers of n-grams seen once and twice. An unseen h leaves p_{n-1} as it is.

Kneser and Ney 1995; Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section
2.7. Written here because the packages either need a C++ tool chain (kenlm) or take minutes for a million tokens (nltk).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genai_core.data.packing import PackedRow, PackedRows

MOST_TOKENS = 5_000_000
"""Training tokens that are counted, the first ones in their random order; more would cost gigabytes."""


@dataclass(frozen=True)
class Predicted:
    """Tokens that carry a loss, each with the tokens before it in its own segment."""

    tokens: np.ndarray  # (N,) int32
    before: np.ndarray  # (N, H) int32: the last token, the one before it, ...; `vocab` where the segment had not begun

    @staticmethod
    def of(rows: Iterable[PackedRow], history: int, vocab: int, most: int = MOST_TOKENS) -> Predicted:
        """Return the predicted tokens of packed rows, at most so many."""
        tokens: list[np.ndarray] = []
        before: list[np.ndarray] = []
        found = 0
        for row in rows:
            if found >= most:
                break
            starts = np.repeat(np.cumsum(row.seq_lengths) - row.seq_lengths, row.seq_lengths)
            places = np.arange(len(row.input_ids))
            wanted = places[(row.loss_mask > 0) & (places > starts)]
            offsets = wanted[:, None] - 1 - np.arange(history)  # (n, H)
            inside = offsets >= starts[wanted, None]
            tokens.append(row.input_ids[wanted].astype(np.int32))
            before.append(np.where(inside, row.input_ids[np.maximum(offsets, 0)], vocab).astype(np.int32))
            found += len(wanted)
        if not tokens:
            return Predicted(np.empty(0, np.int32), np.empty((0, history), np.int32))
        return Predicted(np.concatenate(tokens)[:most], np.concatenate(before)[:most])


def kneser_ney(train: Predicted, text: Predicted, orders: Collection[int], vocab: int) -> dict[int, np.ndarray]:
    """Return the probability of every predicted token of a text, (N,), under the model of each order.

    Orders are walked upwards, so that of each length of n-grams only one table is held at a time.

    Args:
        train: what is counted, with at least `max(orders) - 1` tokens of history.
        text: what is predicted, as much history.
        orders: 1 = how often a token occurs, 3 = two tokens of history.
        vocab: number of tokens.
    """
    size = vocab + 1  # one more for "not begun"
    ids, asked = np.zeros(len(train.tokens), np.int32), np.zeros(len(text.tokens), np.int64)  # numbers of the histories
    histories = 1
    lower = np.full(len(text.tokens), 1.0 / vocab)
    found: dict[int, np.ndarray] = {}
    for order in range(1, max(orders) + 1):
        shorter = ids, asked, histories
        if order > 1:  # a history grows toward the past
            keys, ids = _number(ids.astype(np.int64) * size + train.before[:, order - 2])
            histories = len(keys)
            asked = _look_up(keys, np.where(asked >= 0, asked * size + text.before[:, order - 2], -1))
        grams, first, counts = np.unique(
            ids.astype(np.int64) * vocab + train.tokens, return_index=True, return_counts=True
        )
        if order > 1:  # a longer n-gram counts once for the shorter one that it ends in
            ended = np.unique(shorter[0][first].astype(np.int64) * vocab + train.tokens[first], return_counts=True)
            lower = _Level.count(*ended, vocab, shorter[2]).interpolate(shorter[1], text.tokens, vocab, lower)
        if order in orders:
            found[order] = _Level.count(grams, counts, vocab, histories).interpolate(asked, text.tokens, vocab, lower)
    return found


def _number(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values, sorted, and each one's place among them."""
    keys, places = np.unique(values, return_inverse=True)
    return keys, places.astype(np.int32)


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the place of each value among the sorted keys, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    places: np.ndarray = np.where(keys[at] == wanted, at, -1)
    return places


@dataclass(frozen=True)
class _Level:
    """N-grams of one length."""

    grams: np.ndarray  # sorted history * vocab + token
    counts: np.ndarray
    totals: np.ndarray  # by history
    kinds: np.ndarray  # by history: different tokens after it
    discount: float

    @staticmethod
    def count(unique: np.ndarray, counts: np.ndarray, vocab: int, histories: int) -> _Level:
        """Return the level of different n-grams and their counts."""
        owner = unique // vocab
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        return _Level(
            grams=unique,
            counts=counts,
            totals=np.bincount(owner, weights=counts, minlength=histories),
            kinds=np.bincount(owner, minlength=histories),
            discount=once / (once + 2 * twice) if once else 0.0,
        )

    def interpolate(self, history: np.ndarray, tokens: np.ndarray, vocab: int, lower: np.ndarray) -> np.ndarray:
        """Return the probabilities at this order, given those of the order below; -1 is a history never seen."""
        known = history >= 0
        grams = history * vocab + tokens
        at = np.minimum(np.searchsorted(self.grams, grams), max(0, len(self.grams) - 1))
        counts = np.where(self.grams[at] == grams, self.counts[at], 0) if len(self.grams) else np.zeros(len(grams))
        place = np.where(known, history, 0)
        totals = np.where(known, self.totals[place], 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.maximum(counts - self.discount, 0.0) / totals
            share = self.discount * self.kinds[place] / totals
        return np.where(totals > 0, own + share * lower, lower)


def ngram_bits_per_byte(
    train: PackedRows, heldout: PackedRows, token_bytes: np.ndarray, orders: Sequence[int] = (1, 3, 5)
) -> dict[int, float]:
    """Return, for each order, bits per byte of the held-out rows' text; as training measures it on the same rows.

    Args:
        train: packed rows.
        heldout: packed rows.
        token_bytes: (V,) bytes of each token, 0 for tokens that are no text.
        orders: of the models.
    """
    vocab, history = len(token_bytes), max(orders) - 1
    known, asked = Predicted.of(train, history, vocab), Predicted.of(heldout, history, vocab)
    sizes = token_bytes[asked.tokens]
    if not sizes.sum():
        return {}
    return {
        order: float(-np.log(probabilities[sizes > 0]).sum()) / math.log(2) / float(sizes.sum())
        for order, probabilities in kneser_ney(known, asked, orders, vocab).items()
    }
