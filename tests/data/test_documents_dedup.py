"""Duplicates: recall on real licence texts, the S-curve, parity with datasketch, order and repetition do not matter."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pytest

from genai_core.config.data import DedupConfig
from genai_core.data.dedup import choose_bands, find_candidates, find_exact, find_near, sign
from genai_core.data.shingles import WordHasher, jaccard, join_ngrams, split_words


def load(path):
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


@pytest.fixture(scope="module")
def licences(test_data):
    return load(test_data / "dedup" / "spdx_licences.jsonl.gz")


@pytest.fixture(scope="module")
def licence_pairs(test_data):
    return load(test_data / "dedup" / "spdx_near_duplicate_pairs.jsonl.gz")


def clusters(texts, config):
    """The sets of texts that are one, whatever their order."""
    members: dict[int, set[str]] = {}
    for duplicate in find_near(texts, config):
        members.setdefault(duplicate.survivor, {texts[duplicate.survivor]}).add(texts[duplicate.index])
    return {frozenset(each) for each in members.values()}


def test_exact_copies_go_whatever_their_spacing_and_case():
    texts = ["Hello  World", "other", "hello\nworld ", "a + b", "a - b", "cafe\u0301", "café"]
    assert [(d.index, d.survivor) for d in find_exact(texts)] == [(2, 0), (6, 5)]


def test_jaccard_equals_the_brute_force_of_the_data_set(licences, licence_pairs):
    hasher = WordHasher()
    sets = {row["id"]: np.unique(hasher.ngrams(row["text"], 5)) for row in licences}
    for pair in licence_pairs:
        # the file has three decimals
        assert jaccard(sets[pair["a"]], sets[pair["b"]]) == pytest.approx(pair["jaccard_word5"], abs=6e-4)


def test_recall_on_the_licences(licences, licence_pairs):
    config = DedupConfig()
    place = {row["id"]: index for index, row in enumerate(licences)}
    texts = [row["text"] for row in licences]
    hasher = WordHasher()
    candidates = set(find_candidates([np.unique(hasher.ngrams(text, 5)) for text in texts], config))
    wanted = [tuple(sorted((place[p["a"]], place[p["b"]]))) for p in licence_pairs if p["jaccard_word5"] >= 0.8]
    assert len(wanted) == 393
    assert sum(pair in candidates for pair in wanted) / len(wanted) >= 0.98

    found = find_near(texts, config)
    gone = {duplicate.index for duplicate in found}
    assert all(a in gone or b in gone for a, b in wanted)  # of each pair one has left
    near = {tuple(sorted((d.index, d.survivor))) for d in found}
    similarity = {tuple(sorted((place[p["a"]], place[p["b"]]))): p["jaccard_word5"] for p in licence_pairs}
    assert min(similarity.get(pair, 0) for pair in near) >= 0.5  # chains stay near; below 0.5 there is no entry
    left = [text for index, text in enumerate(texts) if index not in gone]
    assert find_near(left, config) == []


def test_the_order_of_documents_decides_survivors_not_clusters(licences):
    texts = [row["text"] for row in licences][:250]
    expected = clusters(texts, DedupConfig())
    assert len(expected) > 10
    for seed in range(3):
        shuffled = random.Random(seed).sample(texts, len(texts))
        assert clusters(shuffled, DedupConfig()) == expected


def synthetic_pairs(similarity, count, size=200):
    rng = np.random.default_rng(0)
    common = round(2 * size * similarity / (1 + similarity))
    sets = []
    for _ in range(count):
        values = rng.integers(0, 2**64, size=2 * size - common, dtype=np.uint64)
        sets += [np.unique(values[:size]), np.unique(values[size - common :])]
    return sets, common / (2 * size - common)


@pytest.mark.parametrize("similarity", [0.4, 0.5, 0.6, 0.7, 0.8])
def test_the_s_curve_is_the_formula(similarity):
    count = 400
    sets, exact = synthetic_pairs(similarity, count)
    bands, rows = choose_bands(0.8, 128)
    found = set(find_candidates(sets, DedupConfig()))
    rate = sum((2 * index, 2 * index + 1) in found for index in range(count)) / count
    expected = 1 - (1 - exact**rows) ** bands
    assert rate == pytest.approx(expected, abs=4 * (max(expected * (1 - expected), 0.003) / count) ** 0.5)


def test_signatures_estimate_jaccard_as_datasketch_does():
    """Both are unbiased: sd sqrt(s (1 - s) / k) = 0.028 at 256 permutations; datasketch 1.x, 40 pairs a mean."""
    datasketch = pytest.importorskip("datasketch")
    sets, exact = synthetic_pairs(0.7, 40)
    signatures = sign(sets, 256)
    ours = [float((signatures[2 * n] == signatures[2 * n + 1]).mean()) for n in range(40)]
    theirs = []
    for index in range(40):
        sketches = []
        for values in sets[2 * index : 2 * index + 2]:
            sketch = datasketch.MinHash(num_perm=256, seed=1)
            sketch.update_batch([int(value).to_bytes(8, "little") for value in values])
            sketches.append(sketch)
        theirs.append(sketches[0].jaccard(sketches[1]))
    assert np.mean(ours) == pytest.approx(exact, abs=0.02)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.025)
    assert np.std(ours) == pytest.approx((exact * (1 - exact) / 256) ** 0.5, rel=0.5)


def test_bands_are_as_long_as_recall_allows():
    assert choose_bands(0.8, 128) == (21, 6)
    for threshold in (0.3, 0.5, 0.7, 0.9):
        bands, rows = choose_bands(threshold, 128)
        assert bands * rows <= 128
        assert 1 - (1 - threshold**rows) ** bands >= 0.99
    assert choose_bands(1.0, 16) == (1, 16)


def test_the_first_document_survives_also_through_a_chain():
    """a ~ b ~ c, but a and c are too different themselves: one cluster, and its first member stays."""
    words = [f"w{number}" for number in range(100)]
    texts = [" ".join(words[shift : shift + 80]) for shift in (0, 8, 16)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        found = find_near(["unrelated words that stand alone here", *(texts[index] for index in order)], DedupConfig())
        assert [(each.index, each.survivor) for each in found] == [(2, 1), (3, 1)]
    assert sorted(each.similarity for each in find_near(texts, DedupConfig())) == [
        pytest.approx(60 / 92, abs=1e-6),
        pytest.approx(68 / 84, abs=1e-6),
    ]


def test_short_texts_are_left_to_the_exact_rule():
    texts = ["two words", "two words!", "", "", "one two three four", "one two three four five"]
    assert find_near(texts, DedupConfig()) == []


def test_ngram_hashes_are_positions_not_bags():
    hasher = WordHasher()
    assert split_words("Don't STOP, ﬁne") == ["don", "t", "stop", "fine"]
    a, b = hasher.ngrams("a b c d e f", 5), hasher.ngrams("b a c d e f", 5)
    assert len(a) == 2
    assert not set(a.tolist()) & set(b.tolist())
    assert np.array_equal(WordHasher().ngrams("A, b; c d e", 5), a[:1])
    assert len(join_ngrams(hasher.words("a b"), 5)) == 0
