"""What is hidden and what stands there instead: rates, replacements, units and lengths over many tokens."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.config.masking import Masking, SpanUnit, TokenUnit, WordUnit
from genai_core.data.masking import Masker, Vocabulary, begin_words
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ConfigError

V, MASK = 50, 1
SPECIAL = np.isin(np.arange(V), [0, MASK, 2])
BEGINS = np.arange(V) % 3 != 0  # every third entry goes on with a word
VOCABULARY = Vocabulary(MASK, SPECIAL, BEGINS | SPECIAL)
ROWS, LENGTH = 800, 256


def hide_many(config: Masking, rate: float | None = None, rows: int = ROWS):
    """Return the ids, the noisy ids and what is hidden, (rows, LENGTH) each."""
    masker = Masker(config, VOCABULARY)
    ids = np.random.default_rng(0).integers(0, V, (rows, LENGTH))
    allowed = np.ones(LENGTH, dtype=bool)
    allowed[:7] = False
    made = [masker.hide(row, allowed, rate or config.rate, np.random.default_rng([1, n])) for n, row in enumerate(ids)]
    return ids, np.stack([noisy for noisy, _ in made]), np.stack([hidden for _, hidden in made]), allowed


UNITS = [
    TokenUnit(),
    WordUnit(),
    SpanUnit(),
    SpanUnit(lengths="geometric"),
    SpanUnit(lengths="geometric", whole_words=True),
]


@pytest.mark.parametrize("unit", UNITS, ids=["token", "word", "uniform", "geometric", "words"])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_the_rate_and_the_shares_are_those_asked_for(unit, rate) -> None:
    ids, noisy, hidden, allowed = hide_many(Masking(rate=rate, unit=unit))
    candidates = allowed & ~SPECIAL[ids]
    assert not (hidden & ~candidates).any(), "no special token, and nothing where nothing may be hidden"
    rates = hidden.sum(1) / candidates.sum(1)  # (rows,)
    assert abs(rates.mean() - rate) < 3 * rates.std() / len(rates) ** 0.5 + 2e-4
    shown = noisy[hidden]
    total, chance = len(shown), 1 / (V - SPECIAL.sum())
    masked, kept = (shown == MASK).mean(), (shown == ids[hidden]).mean()
    assert masked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 + 0.1 * chance, abs=0.01)
    assert not SPECIAL[shown[shown != MASK]].any(), "a random token is never a special one"
    assert (noisy[~hidden] == ids[~hidden]).all()
    assert total > 10_000


def test_whole_words_are_hidden_whole() -> None:
    ids, _, hidden, allowed = hide_many(Masking(rate=0.3, unit=WordUnit()), rows=100)
    for row, here in zip(ids, hidden, strict=True):
        candidates = allowed & ~SPECIAL[row]
        for at in range(1, LENGTH):
            if candidates[at] and candidates[at - 1] and not BEGINS[row[at]]:
                assert here[at] == here[at - 1]


def runs(hidden: np.ndarray) -> np.ndarray:
    edges = np.diff(np.pad(hidden.astype(int), 1))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


def test_geometric_spans_are_those_of_spanbert() -> None:
    """At a rate of one span a row nothing touches and nothing is cut: 3.797 tokens on average."""
    masker = Masker(Masking(unit=SpanUnit(lengths="geometric")), Vocabulary(MASK, np.arange(V) == MASK, BEGINS))
    ids, allowed = np.full(400, 5), np.ones(400, dtype=bool)
    lengths = []
    for n in range(6000):
        _, hidden = masker.hide(ids, allowed, 1 / 400, np.random.default_rng([2, n]))
        lengths += runs(hidden).tolist()
    # the first unit is always taken, so it is one of the partition's spans, drawn evenly
    assert np.mean(lengths) == pytest.approx(3.797, abs=0.1)
    assert max(lengths) == 10


def test_a_span_is_replaced_as_one_and_a_word_piece_by_piece() -> None:
    _, noisy, hidden, _ = hide_many(Masking(rate=0.1, unit=SpanUnit(longest=4)), rows=300)
    mixed = [
        len(set((row[start : start + 2] == MASK).tolist())) > 1
        for row, here in zip(noisy, hidden, strict=True)
        for start in np.flatnonzero(here[:-1] & here[1:])
    ]
    assert 0.02 < np.mean(mixed) < 0.2, "only where two spans touch"
    _, noisy, hidden, _ = hide_many(Masking(rate=0.1, unit=WordUnit()), rows=300)
    mixed = [
        len(set((row[start : start + 2] == MASK).tolist())) > 1
        for row, here in zip(noisy, hidden, strict=True)
        for start in np.flatnonzero(here[:-1] & here[1:])
    ]
    assert np.mean(mixed) == pytest.approx(2 * 0.8 * 0.2, abs=0.05)


def test_the_same_noise_hides_the_same_and_other_noise_other_tokens() -> None:
    masker = Masker(Masking(), VOCABULARY)
    ids, allowed = np.random.default_rng(0).integers(3, V, LENGTH), np.ones(LENGTH, dtype=bool)
    first, again, other = (masker.hide(ids, allowed, 0.15, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[1] != other[1]).any()


def test_a_row_without_candidates_stays_as_it_is_and_a_short_one_hides_one() -> None:
    masker = Masker(Masking(rate=0.15), VOCABULARY)
    noisy, hidden = masker.hide(np.array([0, 1, 2]), np.ones(3, dtype=bool), 0.15, np.random.default_rng(0))
    assert not hidden.any()
    assert noisy.tolist() == [0, 1, 2]
    _, hidden = masker.hide(np.array([4, 5]), np.array([False, True]), 0.15, np.random.default_rng(0))
    assert hidden.tolist() == [False, True]


def test_the_rate_goes_to_its_final_value_in_a_line() -> None:
    masker = Masker(Masking(rate=0.3, final_rate=0.15), VOCABULARY)
    assert [masker.rate(at) for at in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.225, 0.15])
    assert Masker(Masking(rate=0.3), VOCABULARY).rate(0.9) == 0.3


def test_a_vocabulary_knows_specials_words_and_what_stands_for_a_mask() -> None:
    tokenizer = train_tokenizer(["the model reads one document_name and then another_one"] * 9, 330, 64)
    with pytest.raises(ConfigError, match=r"no mask token.*data\.tokenizer\.mask_token"):
        Vocabulary.of(tokenizer)
    with pytest.raises(ConfigError, match="no entry 'zebra'"):
        Vocabulary.of(tokenizer, "zebra")
    found = Vocabulary.of(tokenizer, "_")
    assert found.mask_id == tokenizer.convert_tokens_to_ids("_")
    assert found.is_special.sum() == 7, "the six specials and what stands for a mask"


def test_words_begin_where_the_tokenizer_marks_them() -> None:
    assert begin_words(["Ġthe", "ory", "Ċ", ".", "_", "x9"]) == [True, False, True, True, False, False]
    assert begin_words(["▁the", "ory", "▁"]) == [True, False, True]
    assert begin_words(["the", "##ory", ".", "[CLS]"]) == [True, False, True, True]
