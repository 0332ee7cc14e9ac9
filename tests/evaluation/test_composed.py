"""Figures of composed texts against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from genai_core.evaluation.benchmarks.composed import (
    Copied,
    Tfidf,
    bleu,
    classify,
    coherence,
    copies,
    macro_f1,
    rouge_l,
)


def test_bleu_of_one_changed_word_and_of_a_short_text() -> None:
    reference = list("abcdef")
    assert bleu([reference], [reference]) == pytest.approx(1.0)
    changed = list("abcdeX")  # of 6, 5, 4, 3 n-grams one each is wrong
    assert bleu([changed], [reference]) == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert bleu([reference[:4]], [reference]) == pytest.approx(math.exp(1 - 6 / 4)), "too short: brevity alone"
    assert bleu([list("abcX")], [list("abcd")]) == 0.0, "no 4-gram in common"
    both = bleu([changed, reference], [reference, reference])
    assert both == pytest.approx((11 / 12 * 9 / 10 * 7 / 8 * 5 / 6) ** 0.25), "counts are added, not scores"


def test_bleu_clips_what_is_said_too_often() -> None:
    text, reference = list("aaaaabcde"), list("abcdeXXXX")
    expected = (5 / 9 * 4 / 8 * 3 / 7 * 2 / 6) ** 0.25
    assert bleu([text], [reference]) == pytest.approx(expected)


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert rouge_l(list("abcd"), list("abcd")) == 1.0
    assert rouge_l(list("axbyc"), list("abc")) == pytest.approx(2 * 3 / 8)
    assert rouge_l(list("cba"), list("abc")) == pytest.approx(2 * 1 / 6), "order counts"
    assert rouge_l([], list("abc")) == rouge_l(list("abc"), []) == 0.0


def test_coherence_is_the_diagonal_less_the_rest() -> None:
    cosines = np.array([[0.9, 0.1, 0.2], [0.3, 0.6, 0.3], [0.0, 0.4, 0.2]])
    np.testing.assert_allclose(coherence(cosines), [0.9 - 0.15, 0.6 - 0.3, 0.2 - 0.2], atol=1e-15)
    assert coherence(np.ones((4, 4))).tolist() == [0.0] * 4
    assert coherence(np.ones((1, 1))).tolist() == [0.0]


def test_texts_that_keep_to_their_own_words_are_coherent_and_shuffled_rests_are_not() -> None:
    ruler = Tfidf(["red stone fire", "blue water rain", "green leaf tree"])
    beginnings, rests = ["red stone", "blue water", "green leaf"], ["stone fire", "rain water", "tree leaf"]
    own = coherence(ruler.cosines(beginnings, rests)).mean()
    shuffled = coherence(ruler.cosines(beginnings, [*rests[1:], rests[0]])).mean()
    assert own == pytest.approx(0.5), "two of four words shared, all of equal weight"
    assert shuffled == pytest.approx(-0.25)
    assert ruler.cosines(["unknown words"], beginnings).tolist() == [[0.0] * 3]


def test_copies_are_counted_by_hand() -> None:
    text = list("abcdXefgh")
    documents = [("own", list("..abcd..")), ("other", list("efgh.bcd"))]
    [found] = copies([text], [[True] * 9], ["own"], documents, 3)
    # abc bcd | cdX dXe Xef | efg fgh
    assert found == Copied(grams=7, copied=4, elsewhere=3, longest=4)
    [only] = copies([text], [[False] * 5 + [True] * 4], ["own"], documents, 3)
    assert only == Copied(grams=4, copied=2, elsewhere=2, longest=4), "from Xef's neighbours on: dXe, Xef, efg, fgh"
    [none] = copies([list("ab")], [[True] * 2], ["own"], documents, 3)
    assert none == Copied(0, 0, 0, 0)


def test_a_run_is_of_one_document_and_of_neighbouring_words() -> None:
    text = list("abcdefgh")
    [found] = copies([text], [[True] * 8], ["x"], [("1", list("abcde")), ("2", list("defgh"))], 3)
    assert (found.copied, found.longest) == (6, 5), "all of it stands somewhere, no more than five words in one place"
    [found] = copies([text], [[True] * 8], ["x"], [("1", list("abcd.abcdef"))], 3)
    assert found.longest == 6


def test_runs_agree_with_looking_everywhere() -> None:
    draw = random.Random(0)
    documents = [(str(n), draw.choices("abc", k=60)) for n in range(4)]
    texts = [draw.choices("abc", k=20) for _ in range(6)]
    found = copies(texts, [[True] * 20] * 6, ["0"] * 6, documents, 4)

    def stands(part: list[str], words: list[str]) -> bool:
        return any(words[at : at + len(part)] == part for at in range(len(words)))

    for text, one in zip(texts, found, strict=True):
        parts = [text[a:b] for a in range(20) for b in range(a + 4, 21)]
        longest = max((len(part) for part in parts if any(stands(part, words) for _, words in documents)), default=0)
        grams = [text[a : a + 4] for a in range(17)]
        assert one.longest == longest
        assert one.copied == sum(any(stands(gram, words) for _, words in documents) for gram in grams)
        assert one.elsewhere == sum(any(stands(gram, words) for _, words in documents[1:]) for gram in grams)


def test_a_label_is_learned_from_words_and_from_nothing_where_there_are_none() -> None:
    texts, labels = ["red stone", "red fire", "blue rain", "blue water"] * 5, ["hot", "hot", "cold", "cold"] * 5
    assert classify(texts, labels, ["a red thing", "a blue thing"]) == ["hot", "cold"]
    assert classify([""] * 3, ["b", "a", "b"], ["red", "blue"]) == ["b", "b"]
    assert classify(["red", "stone"], ["a", "a"], ["blue"]) == ["a"]


def test_macro_f1_by_hand() -> None:
    assert macro_f1(["a", "a", "b", "b"], ["a", "b", "b", "b"]) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert macro_f1(["a", "a"], ["a", "b"]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1([], []) == 0.0
