"""Masking beside transformers' whole-word collator, and lengths of spans against their distributions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordPiece
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from genai_core.config.masking import Masking, SpanUnit, WordUnit
from genai_core.data.masking import GEOMETRIC_P, LONGEST_SPAN, Masker, Vocabulary

STEMS = ("river", "stone", "cloud", "letter", "window")
PIECES = ("##s", "##ing", "##ly", "##er")
VISITS = 300


def wordpiece() -> PreTrainedTokenizerFast:
    """Return a tokenizer of a few stems and what may follow them."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    entries = {name: at for at, name in enumerate((*special, *STEMS, *PIECES))}
    inner = Tokenizer(WordPiece(entries, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **roles)


def long_text() -> str:
    rng = np.random.default_rng(0)
    return " ".join(
        rng.choice(STEMS) + "".join(piece[2:] for piece in rng.choice(PIECES, rng.integers(0, 3))) for _ in range(80)
    )


def test_words_are_hidden_whole_and_as_often_as_by_transformers_collator() -> None:
    tokenizer, text = wordpiece(), long_text()
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    row = np.array(encoded["input_ids"])
    vocabulary = Vocabulary.of(tokenizer)
    begins = [*np.flatnonzero(vocabulary.begins_word[row]), len(row)]
    words = [range(first, end) for first, end in pairwise(begins)]
    assert len(words) == 80 < len(row), "some have several pieces"

    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.2, whole_word_mask=True, seed=0)
    made = collator([dict(encoded) for _ in range(VISITS)])
    masker = Masker(Masking(rate=0.2, unit=WordUnit()), vocabulary)
    rng = np.random.Generator(np.random.PCG64(0))
    ours = [masker.hide(row, np.ones(len(row), dtype=bool), 0.2, rng) for _ in range(VISITS)]
    shares = {}
    for name, ids, hidden in (
        ("theirs", made["input_ids"].numpy(), made["labels"].numpy() != -100),
        ("ours", np.stack([noisy for noisy, _ in ours]), np.stack([chosen for _, chosen in ours])),
    ):
        for word in words:
            assert (hidden[:, word].all(axis=1) == hidden[:, word].any(axis=1)).all(), f"{name}: a part of a word"
        a_visit = hidden.mean(axis=1)
        shares[name] = float(a_visit.mean())
        assert shares[name] == pytest.approx(0.2, abs=4 * a_visit.std() / VISITS**0.5)
        # with whole words theirs leaves nothing but masks; ours goes on as BERT, every piece for itself
        shown = float((ids == tokenizer.mask_token_id)[hidden].mean())
        assert shown == pytest.approx(1.0 if name == "theirs" else 0.8, abs=0.03), name
    split = [masker.hide(row, np.ones(len(row), dtype=bool), 0.2, rng)[1] for _ in range(5)]
    single = Masker(Masking(rate=0.2), vocabulary)
    parts = [single.hide(row, np.ones(len(row), dtype=bool), 0.2, rng)[1] for _ in range(5)]
    assert not any(part[word].any() != part[word].all() for part in split for word in words)
    assert any(part[word].any() != part[word].all() for part in parts for word in words), "tokens alone part words"


@pytest.mark.parametrize("unit", [SpanUnit(longest=5), SpanUnit(lengths="geometric")], ids=["uniform", "geometric"])
def test_lengths_of_spans_are_distributed_as_said(unit: SpanUnit) -> None:
    """Chi-square of 2,000 spans, one a row, so that none touches another."""
    masker = Masker(Masking(unit=unit), Vocabulary(1, np.arange(50) == 1, np.ones(50, dtype=bool)))
    ids, allowed = np.full(400, 5), np.ones(400, dtype=bool)
    lengths = []
    for number in range(2000):
        _, hidden = masker.hide(ids, allowed, 1 / 400, np.random.default_rng([4, number]))
        edges = np.flatnonzero(np.diff(np.pad(hidden.astype(int), 1)))
        if len(edges) == 2 and edges[1] < 400:  # the last span of a row is what is left of it
            lengths.append(int(edges[1] - edges[0]))
    if unit.lengths == "uniform":
        shares = np.full(unit.longest, 1 / unit.longest)
    else:
        shares = GEOMETRIC_P * (1 - GEOMETRIC_P) ** np.arange(LONGEST_SPAN)
        shares = shares / shares.sum()
    counts = np.bincount(lengths, minlength=len(shares) + 1)[1:]
    assert len(counts) == len(shares)
    assert len(lengths) > 1700
    assert chisquare(counts, shares * len(lengths)).pvalue > 0.001
    assert chisquare(counts, shares[::-1] * len(lengths) if unit.lengths != "uniform" else
                     np.array([0.3, 0.2, 0.2, 0.2, 0.1]) * len(lengths)).pvalue < 1e-4  # fmt: skip
