"""Each metric against its closed form, its definition or a simulation with a known law (Wright-Fisher drift)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from genai_core.errors import DataError
from genai_core.recursion.metrics import (
    Embedder,
    cut_to_budget,
    distinct_n,
    entropy_nats,
    heterozygosity,
    ngrams,
    repeated_share,
    self_bleu,
    tail_coverage,
    tail_tokens,
    vendi_score,
    words,
)


def zipf(types: int = 50) -> np.ndarray:
    shares = 1 / np.arange(1, types + 1)
    return shares / shares.sum()


def drift(rng: np.random.Generator, p0: np.ndarray, M: int, generations: int, real: float = 0.0) -> np.ndarray:
    """Return the last M tokens of a unigram model retrained on its own samples, a share `real` of them fresh."""
    p = p0
    tokens = np.empty(0, dtype=int)
    for _ in range(generations):
        tokens = rng.choice(len(p0), size=M, p=(1 - real) * p + real * p0)
        p = np.bincount(tokens, minlength=len(p0)) / M
    return tokens


def test_distinct_n_closed_form() -> None:
    """K identical samples of L different tokens have K (L - n + 1) n-grams, L - n + 1 of them unique."""
    for n in (1, 2, 4):
        assert distinct_n([list(range(12))] * 5, n) == pytest.approx(1 / 5)
    assert distinct_n([[1, 2], [3, 4]], 2) == 1.0
    assert distinct_n([[1], []], 2) == 0.0


def test_distinct_n_needs_a_fixed_budget() -> None:
    """One source, 20 and 200 samples: without a budget the longer set looks collapsed, with one it does not."""
    rng = np.random.default_rng(0)
    few, many = (rng.choice(50, size=(k, 20), p=zipf()).tolist() for k in (20, 200))
    assert distinct_n(many, 2) < 0.5 * distinct_n(few, 2)
    assert distinct_n(many, 2, budget=400) == pytest.approx(distinct_n(few, 2, budget=400), abs=0.06)
    assert sum(map(len, cut_to_budget(many, 50))) == 50


def plain_self_bleu(samples: list[list[int]]) -> float:
    """BLEU-4 as Papineni et al. define it, with every other sample as reference, one at a time."""
    scores = []
    for at, sample in enumerate(samples):
        others = samples[:at] + samples[at + 1 :]
        logs = []
        for n in range(1, 5):
            counts = Counter(ngrams(sample, n))
            if not counts:
                continue
            references = [Counter(ngrams(other, n)) for other in others]
            clipped = sum(min(c, max(reference[gram] for reference in references)) for gram, c in counts.items())
            logs.append(math.log((clipped or 0.1) / sum(counts.values())))
        closest = min((abs(len(other) - len(sample)), len(other)) for other in others)[1]
        scores.append(math.exp(min(0.0, 1 - closest / len(sample)) + sum(logs) / len(logs)))
    return sum(scores) / len(scores)


def test_self_bleu_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        samples = [rng.integers(0, 6, rng.integers(1, 12)).tolist() for _ in range(8)]
        assert self_bleu(samples) == pytest.approx(plain_self_bleu(samples), abs=1e-12)


def test_self_bleu_of_the_same_and_of_strangers() -> None:
    assert self_bleu([[1, 2, 3, 4, 5]] * 4) == pytest.approx(1.0)
    assert self_bleu([[], [], []]) == 1.0
    assert self_bleu([[10 * i + j for j in range(8)] for i in range(5)]) < 0.05
    # papineni's brevity penalty by hand: 4 of 4 unigrams .. 1 of 1 four-gram match, references are 5 long
    assert self_bleu([[1, 2, 3, 4], [1, 2, 3, 4, 5]]) == pytest.approx(
        (math.exp(1 - 5 / 4) + (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25) / 2
    )


def test_vendi_counts_what_is_different() -> None:
    assert vendi_score(np.ones((7, 4))) == pytest.approx(1.0)
    assert vendi_score(np.eye(6)) == pytest.approx(6.0)
    assert vendi_score(np.repeat(np.eye(3), 5, axis=0)) == pytest.approx(3.0)
    assert vendi_score(np.concatenate([np.eye(3), np.zeros((3, 3))])) == pytest.approx(
        math.exp(-(3 * (1 / 6) * math.log(1 / 6) + 0.5 * math.log(0.5)))
    ), "three empty answers are one kind of answer"


def test_vendi_of_either_gram_matrix() -> None:
    """The smaller Gram matrix gives the score of the n x n one, whichever side is smaller."""
    for shape in ((40, 7), (7, 40)):
        vectors = np.random.default_rng(1).normal(size=shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
        eigenvalues = eigenvalues[eigenvalues > 1e-12]
        assert vendi_score(vectors) == pytest.approx(math.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-9)


def test_heterozygosity_drifts_as_wright_and_fisher_say() -> None:
    """3.2.2 item 3: E H_n = (1 - 1/M)^n H_0, within 4 standard errors; the tail goes first."""
    rng = np.random.default_rng(0)
    p0, M, n = zipf(), 200, 30
    runs = [[drift(rng, p0, M, n).tolist()] for _ in range(150)]
    values = np.array([heterozygosity(run) for run in runs])
    law = (1 - 1 / M) ** n * (1 - (p0**2).sum())
    assert abs(values.mean() - law) < 4 * values.std() / math.sqrt(len(values))
    assert abs(values.mean() - (1 - (p0**2).sum())) > 10 * values.std() / math.sqrt(len(values))
    tail = frozenset((token,) for token in range(40, 50))
    fresh = [[rng.choice(50, M, p=p0).tolist()] for _ in range(150)]
    assert np.mean([tail_coverage(run, tail) for run in runs]) < 0.1
    assert np.mean([tail_coverage(run, tail) for run in fresh]) > 0.4


def test_fresh_real_tokens_save_the_bulk_before_the_tail() -> None:
    """3.2.2 item 4: with 10 % fresh tokens H stays at its fixed point (97 %), the tail does not."""
    rng = np.random.default_rng(1)
    p0, M, a = zipf(), 200, 0.1
    f0 = (p0**2).sum()
    keep = (1 - 1 / M) * (1 - a) ** 2
    fixed = (1 / M + (1 - 1 / M) * (1 - (1 - a) ** 2) * f0) / (1 - keep)
    runs = [[drift(rng, p0, M, 40, real=a).tolist()] for _ in range(150)]
    values = np.array([heterozygosity(run) for run in runs])
    assert abs(values.mean() - (1 - fixed)) < 4 * values.std() / math.sqrt(len(values))
    tail = frozenset((token,) for token in range(25, 50))
    fresh = np.mean([tail_coverage([rng.choice(50, M, p=p0).tolist()], tail) for _ in range(150)])
    kept = np.mean([tail_coverage(run, tail) for run in runs])
    assert values.mean() > 0.96 * (1 - f0)
    assert kept < 0.75 * fresh


@pytest.mark.parametrize(("T", "generations", "entropy"), [(1.0, 10, 3.197), (0.9, 10, 0.747), (0.7, 5, 0.096)])
def test_entropy_after_sampling_below_temperature_one(T: float, generations: int, entropy: float) -> None:
    """3.2.2 item 5: p_n ~ p_0^((1/T)^n), so entropy falls with infinite data too; the values are the page's."""
    p = zipf() ** ((1 / T) ** generations)
    counts = np.round(p / p.sum() * 2_000_000).astype(int)
    assert entropy_nats([np.repeat(np.arange(50), counts).tolist()]) == pytest.approx(entropy, abs=2e-3)


def test_tail_is_what_training_data_rarely_says_and_the_probe_can_reach() -> None:
    background = [["a"]] * 90 + [["b"]] * 9 + [["c"], ["d"]]
    assert tail_tokens([["a", "b", "c"]], background, share=0.34) == {("c",), ("b",)}
    assert tail_tokens([["a", "b", "c"]], background, share=0.1) == {("c",)}, "d is rare, but no probe asks for it"
    assert tail_coverage([["x", "b"]], frozenset({("b",), ("c",)})) == 0.5
    assert tail_coverage([["b", "c"]], frozenset({("b", "c"), ("c", "d")})) == 0.5


def test_repeats_are_counted_over_prompts_not_within_one() -> None:
    prompts = ["p", "p", "q", "r"]
    assert repeated_share(prompts, ["f(1)", "f(1)", "g()", "h()"]) == 0.0
    assert repeated_share(prompts, ["f(1)", "g()", "f( 1 )", "f(1)"]) == 0.5
    assert repeated_share([], []) == 0.0


def test_embedder_keeps_apart_what_differs_and_does_not_move() -> None:
    real = [f"module_{i % 7}.function_{i % 13}(value={i})" for i in range(90)]
    ruler = Embedder.fit(real, buckets=128, d=16)
    again = Embedder.fit(real, buckets=128, d=16)
    probe = ["module_1.function_2(value=3)", "module_1.function_2(value=3)", "module_5.function_9(value=77)", ""]
    vectors = ruler.embed(probe)
    assert np.array_equal(vectors, again.embed(probe))
    assert vectors.shape == (4, 16)
    assert np.allclose(vectors[0], vectors[1])
    assert not vectors[3].any()
    cosine = vectors[0] @ vectors[2] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[2])
    assert cosine < 0.9
    assert vendi_score(ruler.embed(real[:40])) > 3 * vendi_score(ruler.embed(real[:1] * 40))
    with pytest.raises(DataError, match="needs real texts"):
        Embedder.fit([])


def test_words() -> None:
    assert words("f(x_1='a b')") == ["f", "(", "x_1", "=", "'", "a", "b", "'", ")"]
