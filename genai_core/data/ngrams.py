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
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genai_core.data.packing import PackedRows

MOST_TOKENS = 5_000_000
"""Training tokens that are counted, the first ones in their random order; more would cost gigabytes."""


@dataclass(frozen=True)
class Predicted:
    """Tokens that carry a loss, each with the tokens before it in its own segment."""

    tokens: np.ndarray  # (N,) int64
    before: np.ndarray  # (N, H) int64: the last token, the one before it, ...; `vocab` where the segment had not begun

    @staticmethod
    def of(rows: PackedRows, history: int, vocab: int, most: int = MOST_TOKENS) -> Predicted:
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
            tokens.append(row.input_ids[wanted].astype(np.int64))
            before.append(np.where(inside, row.input_ids[np.maximum(offsets, 0)], vocab).astype(np.int64))
            found += len(wanted)
        if not tokens:
            return Predicted(np.empty(0, np.int64), np.empty((0, history), np.int64))
        return Predicted(np.concatenate(tokens)[:most], np.concatenate(before)[:most])


class KneserNey:
    """An interpolated Kneser-Ney model of one order."""

    def __init__(self, train: Predicted, order: int, vocab: int) -> None:
        """Count.

        Args:
            train: with at least `order - 1` tokens of history.
            order: 1 = how often a token occurs, 3 = two tokens of history.
            vocab: number of tokens.
        """
        self._order, self._vocab = order, vocab
        self._history = _Index(train.before[:, : order - 1], vocab)
        histories = self._history.ids(train.before[:, : order - 1])  # (order, N): of 0, 1, ... order - 1 tokens
        self._levels: list[_Level] = []
        for level in range(order):
            grams = histories[level] * vocab + train.tokens
            if level < order - 1:  # a longer n-gram counts once for the shorter one that it ends in
                longer = histories[level + 1] * vocab + train.tokens
                grams = grams[np.unique(longer, return_index=True)[1]]
            self._levels.append(_Level.count(grams, vocab, int(histories[level].max(initial=0)) + 1))

    def probabilities(self, text: Predicted) -> np.ndarray:
        """Return the probability of every predicted token, (N,)."""
        histories = self._history.ids(text.before[:, : self._order - 1])
        found = np.full(len(text.tokens), 1.0 / self._vocab)
        for level, history in zip(self._levels, histories, strict=True):
            found = level.interpolate(history, text.tokens, self._vocab, found)
        return found


@dataclass(frozen=True)
class _Level:
    grams: np.ndarray  # sorted history * vocab + token
    counts: np.ndarray
    totals: np.ndarray  # by history
    kinds: np.ndarray  # by history: different tokens after it
    discount: float

    @staticmethod
    def count(grams: np.ndarray, vocab: int, histories: int) -> _Level:
        unique, counts = np.unique(grams, return_counts=True)
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


class _Index:
    """Numbers for the histories of each length that training has; a history grows toward the past."""

    def __init__(self, before: np.ndarray, vocab: int) -> None:
        self._size = vocab + 1  # one more for "not begun"
        self._keys: list[np.ndarray] = []
        current = np.zeros(len(before), np.int64)
        for column in before.T:
            keys, current = np.unique(current * self._size + column, return_inverse=True)
            self._keys.append(keys)

    def ids(self, before: np.ndarray) -> list[np.ndarray]:
        """Return the number of each row's history of 0, 1, ... tokens, -1 where training has none such."""
        found = [np.zeros(len(before), np.int64)]
        for keys, column in zip(self._keys, before.T, strict=True):
            wanted = np.where(found[-1] >= 0, found[-1] * self._size + column, -1)
            at = np.minimum(np.searchsorted(keys, wanted), max(0, len(keys) - 1))
            found.append(np.where(keys[at] == wanted, at, -1) if len(keys) else np.full(len(before), -1))
        return found


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
        order: float(-np.log(KneserNey(known, order, vocab).probabilities(asked)[sizes > 0]).sum())
        / math.log(2)
        / float(sizes.sum())
        for order in orders
    }
