"""A language model in twenty lines, to run generations without one: word bigrams with a little smoothing."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from genai_core.recursion.metrics import words

START, END = "<s>", "</s>"
MODULES = [f"mod{i}" for i in range(12)]
NAMES = [f"name{i}" for i in range(30)]
VALUES = [str(i) for i in range(40)]


def real_texts(rng: np.random.Generator, n: int) -> list[str]:
    """Return n real answers; modules, names and values with a long tail."""

    cumulative = {len(items): np.cumsum(1 / np.arange(1, len(items) + 1)) for items in (MODULES, NAMES, VALUES)}

    def pick(items: list[str]) -> str:
        weights = cumulative[len(items)]
        return items[int(np.searchsorted(weights, rng.random() * weights[-1]))]

    return [
        f"{pick(MODULES)}.{pick(NAMES)}({pick(NAMES)}={pick(VALUES)}"
        + "".join(f", {pick(NAMES)}={pick(VALUES)}" for _ in range(int(rng.integers(0, 3))))
        + ")"
        for _ in range(n)
    ]


class Bigrams:
    """p(word | previous word) by counts, mixed with a uniform share so that every loss is finite."""

    def __init__(self, texts: Sequence[str], smoothing: float = 0.02) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._smoothing = smoothing
        for text in texts:
            line = [START, *words(text), END]
            for previous, word in itertools.pairwise(line):
                self._counts[previous][word] += 1

    def nll(self, text: str) -> float:
        """Return the negative log-likelihood of a text, in nats."""
        line = [START, *words(text), END]
        total = 0.0
        for previous, word in itertools.pairwise(line):
            counts = self._counts.get(previous, Counter())
            share = counts[word] / max(1, counts.total())
            total -= math.log((1 - self._smoothing) * share + self._smoothing / 1000)
        return total

    def sample(self, rng: np.random.Generator, n: int) -> list[str]:
        """Return n samples, at temperature 1, of at most 40 words."""
        tables = {
            word: (list(counts), np.cumsum(list(counts.values()))) for word, counts in self._counts.items() if counts
        }
        found = []
        for _ in range(n):
            word, line = START, []
            while len(line) < 40:
                following, weights = tables[word]
                word = following[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
                if word == END:
                    break
                line.append(word)
            found.append(" ".join(line))
        return found
