"""Kneser-Ney: a probability distribution, the textbook's figures, and one that a loop over dictionaries finds too."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from genai_core.data.ngrams import Predicted, kneser_ney, ngram_bits_per_byte
from genai_core.data.packing import pack_documents, pack_examples

VOCAB = 7
END = 0


def rows(texts, seq_len=8):
    return pack_documents(texts, seq_len, END)


def random_texts(seed, count=60):
    rng = np.random.default_rng(seed)
    return [
        rng.choice(VOCAB - 1, size=rng.integers(1, 12), p=[0.4, 0.25, 0.15, 0.1, 0.07, 0.03]) + 1 for _ in range(count)
    ]


def grams_of(packed, order):
    """Each predicted token with its history, as tuples; None stands before a segment's beginning."""
    found = []
    for row in packed:
        ends = np.cumsum(row.seq_lengths)
        for start, end in zip(ends - row.seq_lengths, ends, strict=True):
            ids = [None] * (order - 1) + [int(i) for i in row.input_ids[start:end]]
            found += [tuple(ids[at : at + order]) for at in range(1, end - start) if row.loss_mask[start + at]]
    return found


def by_dictionaries(train, order):
    """p(gram) by the formula itself, recursively."""
    highest = grams_of(train, order)

    def counts_at(n):
        return Counter(highest) if n == order else Counter(gram[-n:] for gram in {g[-n - 1 :] for g in highest})

    tables = {}
    for n in range(1, order + 1):
        counts = counts_at(n)
        totals, kinds = defaultdict(int), defaultdict(int)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        once, twice = (sum(c == k for c in counts.values()) for k in (1, 2))
        tables[n] = counts, totals, kinds, (once / (once + 2 * twice) if once else 0.0)

    def p(gram):
        if not gram:
            return 1 / VOCAB
        counts, totals, kinds, discount = tables[len(gram)]
        history = gram[:-1]
        lower = p(gram[1:])
        if not totals[history]:
            return lower
        return max(counts[gram] - discount, 0) / totals[history] + discount * kinds[history] / totals[history] * lower

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_formula(order):
    train, heldout = rows(random_texts(0)), rows(random_texts(1, 20))
    p = by_dictionaries(train, order)
    known, asked = Predicted.of(train, 4, VOCAB), Predicted.of(heldout, 4, VOCAB)
    found = kneser_ney(known, asked, {order}, VOCAB)[order]
    assert found == pytest.approx(kneser_ney(known, asked, range(1, 6), VOCAB)[order], rel=1e-15)
    assert found == pytest.approx([p(gram) for gram in grams_of(heldout, order)], rel=1e-12)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_the_probabilities_after_any_history_add_up_to_one(order):
    train = rows(random_texts(0))
    known = Predicted.of(train, order - 1, VOCAB)
    rng = np.random.default_rng(2)
    for _ in range(20):
        history = np.tile(rng.integers(0, VOCAB + 1, order - 1), (VOCAB, 1))  # seen and unseen, begun and not
        total = kneser_ney(known, Predicted(np.arange(VOCAB), history), {order}, VOCAB)[order].sum()
        assert total == pytest.approx(1.0, abs=1e-12)


def test_bits_per_byte_count_text_only_and_fall_with_the_order():
    """Token t is t bytes long, the document's end none; what always follows what costs nearly nothing at order 3."""
    train = rows([[1, 2, 3, 4, 5, 6] for _ in range(200)], seq_len=32)
    bits = ngram_bits_per_byte(train, train, np.arange(VOCAB), orders=(1, 3))
    assert bits[1] == pytest.approx(math.log2(VOCAB - 1) * 6 / 21, rel=0.2)
    assert bits[3] < 0.02
    assert ngram_bits_per_byte(train, train, np.zeros(VOCAB, int)) == {}


def test_only_what_carries_a_loss_is_counted_and_predicted():
    packed = pack_examples([([1, 2, 3, 4], [0, 0, 1, 1]), ([5, 6], [0, 1])], 8)
    found = Predicted.of(packed, 2, VOCAB)
    pairs = {(int(token), *map(int, before)) for token, before in zip(found.tokens, found.before, strict=True)}
    assert pairs == {(3, 2, 1), (4, 3, 2), (6, 5, VOCAB)}
    assert len(Predicted.of(packed, 2, VOCAB, most=2).tokens) == 2
