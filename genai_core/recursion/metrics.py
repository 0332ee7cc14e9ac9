"""Signs of collapse in a set of samples, each at a fixed budget and on a ruler that does not move.

    distinct-n      unique n-grams / all n-grams, over the first so many tokens (Li et al. 2016, arXiv 1510.03055)
    self-BLEU       mean BLEU-4 of each sample against all others (Zhu et al. 2018, arXiv 1802.01886); 1: all the same
    tail coverage   share of rare real tokens (and bigrams) that the samples still use
    Vendi score     exp of the entropy of the similarity matrix's eigenvalues (Friedman and Dieng 2022, arXiv 2210.02410):
                    1 for identical samples, n for orthogonal ones
    duplicates      share of samples that repeat an answer given to another prompt

Tokens here are words and signs of the text, not the model's tokens, so that no tokenizer enters the ruler. Distinct-n
falls with the number of tokens and self-BLEU rises with the number of samples: compare equal numbers only.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genai_core.errors import DataError

TOKEN = re.compile(r"\w+|[^\w\s]")
BLEU_ORDER = 4
# Chen and Cherry 2014, smoothing 1: an order without a match counts as a tenth of one, or every short answer scores 0
BLEU_EPSILON = 0.1

Tokens = Sequence[Hashable]


def words(text: str) -> list[str]:
    """Return the words and signs of a text: `f(x_1)` -> f ( x_1 )."""
    return TOKEN.findall(text)


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """Return the n-grams of one sample, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def cut_to_budget(samples: Iterable[Tokens], budget: int) -> list[Tokens]:
    """Return the samples up to `budget` tokens; the last one is cut."""
    kept: list[Tokens] = []
    for sample in samples:
        if budget <= 0:
            break
        kept.append(sample[:budget])
        budget -= len(kept[-1])
    return kept


def distinct_n(samples: Sequence[Tokens], n: int, budget: int = 0) -> float:
    """Return unique n-grams / all n-grams over the first `budget` tokens; 0 = all. 0.0 where there is no n-gram."""
    kept = cut_to_budget(samples, budget) if budget else samples
    grams = [gram for sample in kept for gram in ngrams(sample, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(samples: Sequence[Tokens]) -> float:
    """Return the mean BLEU-4 of every sample against all the others; 1.0: all the same. See `SelfBleu`."""
    return SelfBleu(samples).of(np.arange(len(samples)))


class SelfBleu:
    """Self-BLEU of any choice of some samples; n-grams are counted once.

    BLEU of one sample (Papineni et al. 2002) clips the count of each n-gram at the most that any *other* sample has. So
    the two largest counts of every n-gram are enough: where the sample holds the largest itself, the second clips it.
    All others are references, no random choice of a hundred, so the figure has no noise of its own.
    """

    def __init__(self, samples: Sequence[Tokens]) -> None:
        self._lengths = np.array([len(sample) for sample in samples], dtype=np.int64)
        self._orders = [_gram_counts(samples, n) for n in range(1, BLEU_ORDER + 1)]

    def of(self, indices: np.ndarray) -> float:
        """Return self-BLEU of the samples with these indices, each at most once; 1.0 for fewer than two.

        An empty sample counts 1.0: it is like any other empty one.
        """
        chosen = np.zeros(len(self._lengths), dtype=bool)
        chosen[indices] = True
        filled = chosen & (self._lengths > 0)
        if filled.sum() < 2:
            return 1.0
        logs, orders = np.zeros(len(filled)), np.zeros(len(filled))
        for owner, gram, count in self._orders:
            rows = filled[owner]
            clipped, total = _clipped(owner[rows], gram[rows], count[rows], len(filled))
            has = total > 0  # a sample of three words has no 4-grams: judged on the orders it has
            logs[has] += np.log(np.where(clipped[has] > 0, clipped[has], BLEU_EPSILON) / total[has])
            orders += has
        lengths = self._lengths[filled]
        distance = np.abs(lengths[:, None] - lengths[None, :]).astype(np.float64)
        np.fill_diagonal(distance, np.inf)
        # of two equally near lengths the shorter is the reference, so ties are broken by a length's small share
        closest = lengths[np.argmin(distance + lengths[None, :] / (2.0 * lengths.max() + 2), axis=1)]
        brevity = np.minimum(0.0, 1 - closest / lengths)
        scores = np.exp(brevity + logs[filled] / orders[filled])
        return float((scores.sum() + chosen.sum() - filled.sum()) / chosen.sum())


def tail_tokens(
    texts: Iterable[Tokens], background: Iterable[Tokens], share: float = 0.2, n: int = 1
) -> frozenset[tuple[Hashable, ...]]:
    """Return the rarest `share` of the n-gram types of some real texts (ties by the n-gram itself).

    Args:
        texts: real answers to the very prompts that are sampled, so that every type of the tail can be reached.
        background: the whole real data, whose counts say what is rare.
        share: of the types.
        n: length of the n-grams.
    """
    counts = Counter(gram for tokens in background for gram in ngrams(tokens, n))
    types = {gram for tokens in texts for gram in ngrams(tokens, n)}
    ranked = sorted(types, key=lambda gram: (counts[gram], tuple(map(str, gram))))
    return frozenset(ranked[: math.ceil(share * len(ranked))])


def tail_coverage(samples: Iterable[Tokens], tail: frozenset[tuple[Hashable, ...]]) -> float:
    """Return the share of the tail's types that appear in the samples; 1.0 for an empty tail."""
    if not tail:
        return 1.0
    n = len(next(iter(tail)))
    return len(tail & {gram for tokens in samples for gram in ngrams(tokens, n)}) / len(tail)


def heterozygosity(samples: Iterable[Tokens]) -> float:
    """Return 1 - sum p^2 of the tokens: the chance that two drawn tokens differ.

    Retrained on M samples of itself n times, a unigram model keeps (1 - 1/M)^n of it (Wright-Fisher drift).
    """
    shares = _token_shares(samples)
    return float(1 - (shares**2).sum())


def entropy_nats(samples: Iterable[Tokens]) -> float:
    """Return the entropy of the tokens, in nats."""
    shares = _token_shares(samples)
    return float(-(shares * np.log(shares)).sum())


def repeated_share(prompts: Sequence[str], answers: Sequence[str]) -> float:
    """Return the share of samples whose answer was given to another prompt before.

    The same answer to the same prompt is no sign of collapse: a model that is sure of one prompt gives it every time.
    """
    first: dict[str, str] = {}
    repeated = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        repeated += first.setdefault(" ".join(words(answer)), prompt) != prompt
    return repeated / len(answers) if answers else 0.0


def vendi_score(vectors: np.ndarray) -> float:
    """Return exp(-sum lambda log lambda) of the eigenvalues of K / n, K the cosine similarities of (n, d) vectors.

    A zero vector (an empty answer) counts as the same as every other zero vector and unlike everything else.
    """
    if not len(vectors):
        return 0.0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    empty = (norms == 0).astype(np.float64)
    unit = np.concatenate([np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0), empty], axis=1)
    # the eigenvalues of the smaller of the two Gram matrices are those of the larger, and zeros
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    eigenvalues = np.linalg.eigvalsh(gram / len(unit))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


@dataclass(frozen=True)
class Embedder:
    """A map of texts to vectors, fitted once on generation 0's real data and then frozen.

    TF-IDF over hashed words and character trigrams, then the leading right singular vectors (latent semantic analysis,
    Deerwester et al. 1990). No model and no randomness: the ruler is the same in every generation.
    """

    weights: np.ndarray
    """(buckets,) inverse document frequency."""

    basis: np.ndarray
    """(buckets, d) orthonormal columns."""

    @staticmethod
    def fit(texts: Sequence[str], *, buckets: int = 512, d: int = 64) -> Embedder:
        """Return the embedder of some real texts. Raises DataError without any."""
        if not texts:
            raise DataError("The fixed embedder needs real texts to be fitted on; the training split has no pairs.")
        counts = _hashed_counts(texts, buckets)
        weights = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
        rows = _normalised(counts * weights)
        eigenvalues, vectors = np.linalg.eigh(rows.T @ rows)
        kept = [index for index in np.argsort(-eigenvalues, kind="stable")[:d] if eigenvalues[index] > 1e-9]
        return Embedder(weights, vectors[:, kept])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, d) vectors; zero for an empty text."""
        vectors: np.ndarray = _normalised(_hashed_counts(texts, len(self.weights)) * self.weights) @ self.basis
        return vectors


def _token_shares(samples: Iterable[Tokens]) -> np.ndarray:
    counts = Counter(token for tokens in samples for token in tokens)
    values = np.array(list(counts.values()), dtype=np.float64)
    return values / values.sum() if len(values) else np.ones(1)


def _hashed_counts(texts: Sequence[str], buckets: int) -> np.ndarray:
    counts = np.zeros((len(texts), buckets))
    for row, text in enumerate(texts):
        padded = f" {text.strip()} " if text.strip() else ""
        trigrams = (padded[start : start + 3] for start in range(len(padded) - 2))
        for feature in (*words(text), *trigrams):
            counts[row, zlib.crc32(feature.encode()) % buckets] += 1
    return np.log1p(counts)  # a word said ten times says not ten times as much


def _normalised(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _gram_counts(samples: Sequence[Tokens], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (sample, n-gram, count) of every n-gram in every sample, n-grams by number."""
    numbers: dict[tuple[Hashable, ...], int] = {}
    rows = [
        (owner, numbers.setdefault(gram, len(numbers)), count)
        for owner, sample in enumerate(samples)
        for gram, count in Counter(ngrams(sample, n)).items()
    ]
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _clipped(owner: np.ndarray, gram: np.ndarray, count: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of n samples the n-grams that some other sample has too, clipped, and all of its n-grams."""
    order = np.lexsort((-count, gram))
    owner, gram, count = owner[order], gram[order], count[order]
    is_first = np.append(True, gram[1:] != gram[:-1])[: len(gram)]
    start = np.flatnonzero(is_first)
    second = np.append(start + 1, 0)[:-1]
    alone = np.append(start[1:], len(gram)) == second
    largest = count[start]
    runner_up = np.where(alone, 0, count[np.minimum(second, max(0, len(gram) - 1))])
    group = np.cumsum(is_first) - 1
    others = np.where(count == largest[group], runner_up[group], largest[group])
    clipped = np.bincount(owner, weights=np.minimum(count, others), minlength=n)
    return clipped, np.bincount(owner, weights=count, minlength=n)
